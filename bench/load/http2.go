package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// transport has one HTTP/2 connection: Go's own pool puts as much on one as the server
// lets it.
func transport(trusted *tls.Config) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Transport{Protocols: &protocols, TLSClientConfig: trusted.Clone(), DisableCompression: true} // net/http writes into it
}

func (c *client) runShared() error {
	p := &c.load.plan
	n := c.number % p.Shared
	t := c.load.shared[n]
	addr := p.Addrs[n%len(p.Addrs)]
	for turn := 0; ; turn++ {
		sent, body := c.next(turn)
		r, err := http.NewRequestWithContext(c.load.ctx, http.MethodPost, "https://"+addr+"/v1/chat/completions", bytes.NewReader(sent))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		if key := c.key(turn); key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		c.asked = wire.Now()
		if err := c.exchange(t, r, body); err != nil {
			return err
		}
		c.ended()
		if c.last() {
			return nil
		}
	}
}

func (c *client) exchange(t *http.Transport, r *http.Request, body body) error {
	resp, err := t.RoundTrip(r)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		start, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return fmt.Errorf("status %s: %q", resp.Status, start)
	}
	if resp.TLS == nil {
		return errors.New("no TLS")
	}
	if err := checkTLS(*resp.TLS, "h2"); err != nil {
		return err
	}
	in := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(in)
		if err := body.take(in[:n], wire.Now()); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			return body.end()
		case err != nil:
			return fmt.Errorf("cut: %w", err)
		}
	}
}

// ClientTLS is what clients do at a TLS handshake: all targets get the same.
func ClientTLS(trusted *tls.Config, protocol string) *tls.Config {
	c := trusted.Clone()
	c.MinVersion = tls.VersionTLS13
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	c.NextProtos = []string{protocol}
	c.ServerName = "127.0.0.1"
	return c
}
