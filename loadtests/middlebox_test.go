//go:build k6

package loadtests

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// front puts a middlebox before the gateway.
func front(t *testing.T, gateway string, box func(http.Handler) http.Handler) string {
	t.Helper()
	target, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	srv := httptest.NewServer(box(proxy))
	t.Cleanup(srv.Close)
	return srv.URL
}

// spoil does to each stream one of the things that leave its status at 200 and
// its end clean.
func spoil(next http.Handler) http.Handler {
	var turn atomic.Int64
	ways := []func(*http.Response){
		func(res *http.Response) { res.Header.Set("Content-Type", "application/json") },
		func(res *http.Response) { res.Body = before("data: [DONE]", res.Body) },
		func(res *http.Response) {
			res.Body = before(`"content":"`, res.Body, `"content":""}}]}`+"\n\ndata: [DONE]\n\n")
		},
		func(res *http.Response) {
			res.Body = before("data: [DONE]", res.Body, "data: {\"error\": {\"message\": \"lost\"}}\n\ndata: [DONE]\n\n")
		},
	}
	proxy := next.(*httputil.ReverseProxy)
	proxy.ModifyResponse = func(res *http.Response) error {
		if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
			ways[int(turn.Add(1))%len(ways)](res)
		}
		return nil
	}
	return proxy
}

// wrongType has every stream called something else, and leaves it whole.
func wrongType(next http.Handler) http.Handler {
	proxy := next.(*httputil.ReverseProxy)
	proxy.ModifyResponse = func(res *http.Response) error {
		if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
			res.Header.Set("Content-Type", "application/json")
		}
		return nil
	}
	return proxy
}

// diesAfter passes so many requests on, and breaks off all others.
func diesAfter(n int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var count atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if count.Add(1) > n {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// before is what comes before the mark, and after that the tail.
func before(mark string, body io.ReadCloser, tail ...string) io.ReadCloser {
	all, err := io.ReadAll(body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body.Close()
	start, _, _ := strings.Cut(string(all), mark)
	return io.NopCloser(strings.NewReader(start + strings.Join(tail, "")))
}

// flushEarly sends headers of its own as soon as it has the request, which is
// what vLLM's own server does.
func flushEarly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			body, err := io.ReadAll(r.Body) // closed by the first byte of the answer
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		next.ServeHTTP(headless{w, http.Header{}}, r)
	})
}

// headless drops the headers of an answer whose own have gone out.
type headless struct {
	http.ResponseWriter
	dropped http.Header
}

func (h headless) Header() http.Header         { return h.dropped }
func (h headless) WriteHeader(int)             {}
func (h headless) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// hintEarly sends 103 Early Hints and then the gateway's answer, with all its
// headers, when that comes.
func hintEarly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		next.ServeHTTP(w, r)
	})
}
