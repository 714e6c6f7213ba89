package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// One port speaks HTTP/1 and HTTP/2, in the clear or over TLS, and a drain waits for
// both.
func TestProtocols(t *testing.T) {
	dir := t.TempDir()
	cert, key := newPair(t, 1)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, certFile, cert)
	write(t, keyFile, key)
	for _, secure := range []bool{false, true} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprint("HTTP/", version, " secure ", secure), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var network memnet.Net
					l, err := network.Listen("server:1")
					if err != nil {
						t.Fatal(err)
					}
					s := Server{Name: "test", Log: slog.New(slog.DiscardHandler), DrainTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.Copy(w, r.Body)
						w.(http.Flusher).Flush()
						time.Sleep(time.Minute)
						fmt.Fprint(w, " ", r.ProtoMajor, r.TLS != nil)
					})}
					url := "http://server:1/"
					if secure {
						s.TLSCert, s.TLSKey, url = certFile, keyFile, "https://server:1/"
					}
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan error)
					go func() { ended <- s.Serve(ctx, l) }()
					var protocols http.Protocols
					protocols.SetHTTP1(version == 1)
					protocols.SetHTTP2(version == 2)
					protocols.SetUnencryptedHTTP2(version == 2)
					client := &http.Client{Transport: &http.Transport{DialContext: network.Dial, Protocols: &protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
					began := time.Now()
					resp, err := client.Post(url, "text/plain", strings.NewReader("asked"))
					if err != nil {
						t.Fatal(err)
					}
					cancel()
					all, err := io.ReadAll(resp.Body)
					if want := fmt.Sprint("asked ", version, secure); string(all) != want || err != nil || time.Since(began) != time.Minute {
						t.Errorf("%q, %v after %v; want %q", all, err, time.Since(began), want)
					}
					if err := <-ended; err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > time.Minute+2*time.Second {
						t.Errorf("the drain took %v", took)
					}
					client.CloseIdleConnections()
				})
			})
		}
	}
}
