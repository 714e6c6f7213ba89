package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Where the measurement itself is in doubt.

// lateness: a client that is late did not send the load it was asked for.
func lateness(v *Verdict) []Finding {
	if v.Lateness == nil || v.Lateness.N == 0 {
		return nil
	}
	f := Finding{Kind: "on time", Severity: "info", Says: fmt.Sprintf("Requests left on time: lateness p99 %s, at most %s.", millis(v.Lateness.P99), millis(v.Lateness.Max))}
	if v.Lateness.P99 > 50 {
		f.Kind, f.Severity = "client late", "warn"
		f.Says = fmt.Sprintf("k6 was late itself: p99 of lateness is %s, so the load was not the one asked for.", millis(v.Lateness.P99))
		f.Try = "Give k6 a machine, or a core, of its own."
	}
	return []Finding{f}
}

// longEnough is how long a stage must be for k6's figures to be held against the
// gateway's: of a shorter one too much lies before its first scrape, which is where
// all users begin at once.
const longEnough = time.Minute

// agreement holds k6's times against the gateway's: the same requests, seen from both
// ends.
func agreement(v *Verdict) []Finding {
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client == nil || s.Server == nil || s.Client.TTFT.N < 20 || s.Server.P95Range == nil || s.End.Sub(s.Start) < longEnough {
			continue
		}
		p95, r := s.Client.TTFT.P95, *s.Server.P95Range
		if late := p95 - r.High; late > 50+0.1*r.High {
			return []Finding{{Kind: "time lost on the way", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s k6 saw a TTFT p95 of %s where the gateway saw %s at most: %s or more are lost between them.", s.title(), millis(p95), millis(r.High), millis(late)),
				Try:  "Look at the network and any proxy between them, and whether k6's machine has a core to spare."}}
		}
		if early := r.Low - p95; early > 50+0.1*r.Low {
			return []Finding{{Kind: "not the same requests", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s k6 saw a TTFT p95 of %s, and the gateway one of at least %s: Prometheus counts others than k6's requests.", s.title(), millis(p95), millis(r.Low)),
				Try:  "See that PROMETHEUS_URL is the one that watches this gateway, and that nobody else uses it during a test."}}
		}
	}
	return nil
}

// others: requests in the same minutes that were not k6's.
func others(v *Verdict) []Finding {
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client == nil || s.Server == nil || s.Server.RPS == nil || s.End.Sub(s.Start) < longEnough {
			continue
		}
		answered := s.Client.reached() / s.End.Sub(s.Start).Seconds()
		if more := *s.Server.RPS - answered; more > 1+0.15*answered {
			return []Finding{{Kind: "others at work", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s the gateway served %s requests a second, and k6 sent %s of them: others used it meanwhile.", s.title(), number(*s.Server.RPS), number(answered)),
				Try:  "Run it again when nobody else does; the gateway's figures are of all."}}
		}
	}
	return nil
}

// reached is how many requests ended that may have got to a gateway.
func (c *Client) reached() float64 { return float64(max(0, c.Ended-c.Unanswered)) }

// elsewhere leaves out the figures of a gateway that was not the one under test: it had
// less than half of the requests.
func elsewhere(v *Verdict) []Finding {
	var sent, served float64
	for i := range v.Stages {
		s := &v.Stages[i]
		if seconds := s.End.Sub(s.Start); s.Client != nil && s.Server != nil && s.Server.RPS != nil && seconds >= longEnough {
			sent += s.Client.reached()
			served += *s.Server.RPS * seconds.Seconds()
		}
	}
	if sent < 20 || served > sent/2 {
		return nil
	}
	for i := range v.Stages {
		v.Stages[i].Server = nil
	}
	v.Series = slices.DeleteFunc(v.Series, func(s Series) bool { return !strings.HasPrefix(s.Name, "k6") })
	return []Finding{{Kind: "another gateway", Severity: "bad",
		Says: fmt.Sprintf("Of the %s requests that k6 sent, the gateway that this Prometheus reads had %s: it is another one, and its figures are left out.", count(sent), count(served)),
		Try:  "Set PROMETHEUS_URL, or --prometheus, to the Prometheus that reads the gateway under test."}}
}
