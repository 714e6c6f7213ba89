package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// inBubble runs a server of ours in virtual time.
func inBubble(t *testing.T, s Server, test func(t *testing.T, network *memnet.Net)) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Net
		l, err := network.Listen("server:1")
		if err != nil {
			t.Fatal(err)
		}
		s.Name, s.Log = "test", slog.New(slog.DiscardHandler)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Serve(ctx, l) }()
		test(t, &network)
		cancel()
		<-ended
	})
}

// http2Client speaks frames.
type http2Client struct {
	*http2.Framer
	conn net.Conn
	head bytes.Buffer
	hp   *hpack.Encoder
}

func dialHTTP2(t *testing.T, network *memnet.Net) *http2Client {
	conn, err := network.Dial(t.Context(), "tcp", "server:1")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, http2.ClientPreface)
	c := &http2Client{Framer: http2.NewFramer(conn, conn), conn: conn}
	c.hp = hpack.NewEncoder(&c.head)
	c.WriteSettings()
	return c
}

func (c *http2Client) get(stream uint32) {
	c.head.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "server"}, {":path", "/"}} {
		c.hp.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.head.Bytes(), EndHeaders: true, EndStream: true})
}

func TestHTTP2Limits(t *testing.T) {
	running := make(chan struct{}, 1000)
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-r.Context().Done()
	})
	inBubble(t, Server{Handler: hang}, func(t *testing.T, network *memnet.Net) {
		c := dialHTTP2(t, network)
		defer c.conn.Close()
		for i := range uint32(maxStreams + 50) {
			c.get(2*i + 1)
		}
		refused := 0
		settings, window := map[http2.SettingID]uint32{}, uint32(64<<10-1)
		for refused < 50 {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				f.ForeachSetting(func(s http2.Setting) error { settings[s.ID] = s.Val; return nil })
			case *http2.WindowUpdateFrame:
				window += f.Increment
			case *http2.RSTStreamFrame:
				refused++
			}
		}
		synctest.Wait()
		if len(running) != maxStreams {
			t.Errorf("%d requests run on one connection; want %d", len(running), maxStreams)
		}
		if settings[http2.SettingMaxConcurrentStreams] != maxStreams || settings[http2.SettingInitialWindowSize] != streamBuffer || window != connBuffer {
			t.Errorf("announced %v, and a window of %d", settings, window)
		}
	})
}

// A client that has died without a word is noticed; one that answers pings is left
// in peace, however long its answer takes.
func TestHTTP2DeadPeer(t *testing.T) {
	for name, tt := range map[string]struct {
		peer    time.Duration
		answers bool
		after   time.Duration
	}{
		"dead":              {0, false, pingAfter + 5*time.Minute},
		"dead, by the flag": {time.Minute, false, pingAfter + time.Minute},
		"alive":             {time.Minute, true, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var took time.Duration
			work := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				began := time.Now()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Hour):
				}
				took = time.Since(began)
			})
			inBubble(t, Server{Handler: work, PeerTimeout: tt.peer}, func(t *testing.T, network *memnet.Net) {
				c := dialHTTP2(t, network)
				defer c.conn.Close()
				c.get(1)
				for {
					f, err := c.ReadFrame()
					if err != nil {
						break
					}
					if ping, ok := f.(*http2.PingFrame); ok && tt.answers {
						c.WritePing(true, ping.Data)
					}
					if h, ok := f.(*http2.HeadersFrame); ok && h.StreamEnded() {
						break
					}
				}
				synctest.Wait()
				if took != tt.after {
					t.Errorf("the request ended after %v; want %v", took, tt.after)
				}
			})
		})
	}
}
