package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// upgrade relays a WebSocket: after the backend's 101 it is two streams of
// bytes that the gateway does not look into. A backend that does not upgrade is
// answered for like on any other path.
func (g *Gateway) upgrade(rec *record, c *call, r *http.Request) {
	if r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		rec.w.Header().Set("Upgrade", "websocket")
		g.refuse(rec, errUpgrade)
		return
	}
	c.upgrade = true
	c.header.Set("Connection", "Upgrade")
	c.header.Set("Upgrade", "websocket")
	a, err := g.forward(rec, c)
	if err != nil {
		g.refuse(rec, err)
		return
	}
	defer a.close()
	if a.status != http.StatusSwitchingProtocols {
		if err := a.relay(rec.w); err != nil {
			g.abort(rec, a, err)
		}
		rec.finish(a)
		return
	}
	if err := a.join(rec.w); err != nil {
		how, _, _ := verdict(err)
		rec.fail(how, err)
		return
	}
	rec.outcome = ok
}

// join lays the client's connection and the backend's end to end until one of
// them closes, or the answer's context ends.
func (a *answer) join(w *writer) error {
	upstream, isConn := a.body.(io.ReadWriteCloser)
	if !isConn {
		return errors.New("the upgraded connection cannot be written to")
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer client.Close()
	w.status, w.begun = http.StatusSwitchingProtocols, true
	defer context.AfterFunc(a.ctx, func() {
		client.Close()
		upstream.Close()
	})()
	if err := a.switchProtocols(client); err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		copyClose(upstream, clientReader(client, buffered.Reader))
	}()
	fromBackend := &reader{Reader: upstream}
	copyClose(client, fromBackend)
	<-sent
	switch {
	case a.ctx.Err() != nil:
		return blame(a.ctx, a.ctx.Err())
	case fromBackend.err != nil && fromBackend.err != io.EOF && !errors.Is(fromBackend.err, net.ErrClosed):
		return errCut // closed is what we did ourselves, when the client left
	}
	return nil
}

// reader remembers why reading ended.
type reader struct {
	io.Reader
	err error
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil {
		r.err = err
	}
	return n, err
}

// switchProtocols sends the backend's 101 to the client.
func (a *answer) switchProtocols(client net.Conn) error {
	client.SetWriteDeadline(time.Now().Add(connectTimeout))
	defer client.SetWriteDeadline(time.Time{})
	out := bufio.NewWriter(client)
	out.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: " + a.rec.id + "\r\n")
	a.header.Del("X-Request-Id")
	a.header.Write(out)
	out.WriteString("\r\n")
	return out.Flush()
}

// clientReader begins with what the server had read ahead of the upgrade.
func clientReader(client net.Conn, ahead *bufio.Reader) io.Reader {
	if n := ahead.Buffered(); n > 0 {
		return io.MultiReader(io.LimitReader(ahead, int64(n)), client)
	}
	return client
}

// copyClose copies until the source ends, then closes the destination, which
// ends the other direction as well.
func copyClose(dst io.WriteCloser, src io.Reader) {
	io.Copy(dst, src) // an error is an end like another: both sides see their connection close
	dst.Close()
}
