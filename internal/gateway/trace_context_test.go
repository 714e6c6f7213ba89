package gateway

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The client's span is the parent of ours, and ours of the backend's.
func TestTraceGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		sent   [][2]string
		parent string // "": ours is a root
		state  string // as the backend gets it
	}{
		"none":               {nil, "", ""},
		"a trace":            {[][2]string{{"traceparent", clientsParent}, {"tracestate", "a=1"}}, clientsTrace, "a=1"},
		"state in parts":     {[][2]string{{"traceparent", clientsParent}, {"tracestate", "a=1"}, {"Tracestate", "b=2"}}, clientsTrace, "a=1,b=2"},
		"broken state":       {[][2]string{{"traceparent", clientsParent}, {"tracestate", "=,="}}, clientsTrace, ""},
		"a key in the state": {[][2]string{{"traceparent", clientsParent}, {"tracestate", "a=" + aliceKey}, {"Authorization", "Bearer " + aliceKey}}, clientsTrace, ""},
		"no trace":           {[][2]string{{"traceparent", "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}, {"tracestate", "a=1"}}, "", ""},
		"nonsense":           {[][2]string{{"traceparent", "what?"}, {"tracestate", "a=1"}}, "", ""},
		"two":                {[][2]string{{"traceparent", clientsParent}, {"traceparent", clientsParent}}, "", ""},
		"a later version":    {[][2]string{{"traceparent", "01-" + clientsTrace + "-00f067aa0ba902b7-01-more"}}, clientsTrace, ""},
		"a version too late": {[][2]string{{"traceparent", "ff-" + clientsTrace + "-00f067aa0ba902b7-01"}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inTracedBubble(t, asIs, func(r *traced) {
				req, _ := http.NewRequest("POST", gatewayURL+"/v1/chat/completions", strings.NewReader(ask))
				req.Header.Set("baggage", "user=1")
				for _, h := range tt.sent {
					req.Header.Add(h[0], h[1])
				}
				r.whole(r.client.Do(req))
				synctest.Wait()
				var server, client sdk.ReadOnlySpan
				for _, s := range r.spans.Ended() {
					switch s.SpanKind() {
					case trace.SpanKindServer:
						server = s
					case trace.SpanKindClient:
						client = s
					}
				}
				switch p := server.Parent(); {
				case tt.parent == "" && p.IsValid():
					t.Errorf("its parent is %v; want none", p.TraceID())
				case tt.parent != "" && (p.TraceID().String() != tt.parent || p.SpanID().String() != "00f067aa0ba902b7" || !p.IsRemote()):
					t.Errorf("its parent is %v %v", p.TraceID(), p.SpanID())
				}
				if client.Parent().SpanID() != server.SpanContext().SpanID() {
					t.Error("the attempt is not part of the request")
				}
				got := r.backends[0].requests()[0].header
				want := "00-" + server.SpanContext().TraceID().String() + "-" + client.SpanContext().SpanID().String() + "-01"
				if all := got["Traceparent"]; len(all) != 1 || all[0] != want {
					t.Errorf("the backend got traceparent %q; want %q", all, want)
				}
				if state := strings.Join(got["Tracestate"], ";"); state != tt.state {
					t.Errorf("the backend got tracestate %q; want %q", state, tt.state)
				}
				if got.Get("Baggage") != "user=1" {
					t.Errorf("the backend got baggage %q", got.Get("Baggage"))
				}
			}, sse(token("a"), done))
		})
	}
}

// The second backend's spans belong to the second attempt.
func TestTraceOfARetry(t *testing.T) {
	inTracedBubble(t, asIs, func(r *traced) {
		r.mustPost("/v1/chat/completions", ask)
		synctest.Wait()
		for _, s := range r.spans.Ended() {
			if s.SpanKind() != trace.SpanKindClient {
				continue
			}
			which := 0
			if _, again := value(s, attrResend); again {
				which = 1
			}
			if got := r.backends[which].requests()[0].header.Get("Traceparent"); !strings.Contains(got, s.SpanContext().SpanID().String()) {
				t.Errorf("backend %d got %s; its attempt is %v", which, got, s.SpanContext().SpanID())
			}
		}
	}, status(503), sse(token("a"), done))
}

// What nobody records goes on all the same: the backend is not to begin a trace.
func TestTraceOfWhatIsNotSampled(t *testing.T) {
	inTracedBubble(t, func(c *Config) {
		c.Tracer = sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.NeverSample()))).Tracer("test")
	}, func(r *traced) {
		r.mustPost("/v1/chat/completions", ask)
		r.mustPost("/v1/chat/completions", ask, "Traceparent", clientsParent[:len(clientsParent)-1]+"0")
		got := r.backends[0].requests()
		if p := got[0].header.Get("Traceparent"); !regexp.MustCompile("^00-[0-9a-f]{32}-[0-9a-f]{16}-00$").MatchString(p) {
			t.Errorf("the backend got %q; want a trace that is not sampled", p)
		}
		if p := got[1].header.Get("Traceparent"); !strings.HasPrefix(p, "00-"+clientsTrace+"-") || !strings.HasSuffix(p, "-00") || strings.Contains(p, "00f067aa0ba902b7") {
			t.Errorf("the backend got %q; want the client's trace, not sampled, and a span of ours", p)
		}
	}, sse(token("a"), done))
}

// Without tracing the headers of traces are headers like others.
func TestTraceIsLeftAlone(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask, "Traceparent", "what?", "Tracestate", "=,=", "Baggage", "user=1")
		got := r.backends[0].requests()[0].header
		if got.Get("Traceparent") != "what?" || got.Get("Tracestate") != "=,=" || got.Get("Baggage") != "user=1" {
			t.Errorf("the backend got %v", got)
		}
	}, sse(token("a"), done))
}

// No span has a key in it, wherever in a request that stands.
func TestKeysAreInNoSpan(t *testing.T) {
	inTracedBubble(t, keyed(), func(r *traced) {
		r.mustPost("/v1/chat/completions?key="+aliceKey, ask, as(aliceKey)...)
		r.mustPost("/v1/chat/completions", `{"model":"`+aliceKey+`"}`, append(as(aliceKey), "X-Request-Id", aliceKey, "User-Agent", aliceKey)...)
		r.mustPost("/v1/responses/"+aliceKey+"/cancel", "", as(aliceKey)...)
		r.mustPost("/v1/responses/"+aliceKey+"/cancel", "")
		synctest.Wait()
		if n := len(r.spans.Ended()); n != 4 {
			t.Errorf("%d spans; want 4", n)
		}
		for _, s := range r.spans.Ended() {
			if text := fmt.Sprint(s.Name(), s.Attributes(), s.Status()); strings.Contains(text, "OPENSESAME") {
				t.Errorf("a key is in %s", text)
			}
		}
	}, hello)
}

// Where the gateway gathers what backends say, their spans are of the request itself.
func TestTraceOfTheListOfModels(t *testing.T) {
	seen := make(chan string, 2)
	inTracedBubble(t, func(c *Config) { c.Aliases = map[string]string{"small": "tiny"} }, func(r *traced) {
		watch := func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if p := r.Header.Get("Traceparent"); p != "" {
					seen <- p
				}
				h.ServeHTTP(w, r)
			})
		}
		r.backends[0].srv.Handler = watch(r.backends[0].srv.Handler)
		r.mustGet("/v1/models")
		synctest.Wait()
		all := r.spans.Ended()
		if len(all) != 1 {
			t.Fatalf("%d spans; want the request's", len(all))
		}
		if got := <-seen; !strings.Contains(got, all[0].SpanContext().SpanID().String()) {
			t.Errorf("the backend got %q; the request is %v", got, all[0].SpanContext().SpanID())
		}
	}, sse(done))
}
