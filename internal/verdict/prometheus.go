package verdict

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// Prometheus is one that can be asked.
type Prometheus struct {
	Client *http.Client // whose transport may be another
	url    *url.URL
}

const (
	// promMaxAnswer is far above any answer to what is asked here.
	promMaxAnswer = 32 << 20
	// promTimeout is for one question.
	promTimeout = 30 * time.Second
	// promMost is above whatever can be measured here: sums of it are still finite.
	promMost = 1e18
)

// NewPrometheus takes the URL under which Prometheus's own page is found.
func NewPrometheus(at string) (*Prometheus, error) {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("that is no URL of a Prometheus: write it as http://localhost:9090")
	}
	u.RawQuery, u.Fragment = "", ""
	return &Prometheus{&http.Client{Timeout: promTimeout}, u}, nil
}

// String is its URL, without a password.
func (p *Prometheus) String() string { return p.url.Redacted() }

// promSeries is a series of an answer; of an instant query it has one point.
type promSeries struct {
	labels map[string]string
	points []Point
}

// instant asks for values at a time. An error says what this Prometheus does wrong,
// "refuses the question: …", so that its name goes before it.
func (p *Prometheus) instant(ctx context.Context, query string, at time.Time) ([]promSeries, error) {
	return p.ask(ctx, "api/v1/query", url.Values{"query": {query}, "time": {promTime(at)}})
}

// over asks for values at each step of a span.
func (p *Prometheus) over(ctx context.Context, query string, from, to time.Time, step time.Duration) ([]promSeries, error) {
	return p.ask(ctx, "api/v1/query_range", url.Values{
		"query": {query}, "start": {promTime(from)}, "end": {promTime(to)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', 3, 64)},
	})
}

func promTime(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// promRange is a duration as Prometheus writes it.
func promRange(d time.Duration) string { return fmt.Sprintf("%dms", max(1, d.Milliseconds())) }

// promUnusable is of a Prometheus that answers no question at all.
type promUnusable struct{ says string }

func (e promUnusable) Error() string { return e.says }

func (p *Prometheus) ask(ctx context.Context, path string, form url.Values) ([]promSeries, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.JoinPath(path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.Client.Do(req)
	if err != nil {
		return nil, promUnusable{"cannot be reached (" + promReason(err) + ")"}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, promMaxAnswer+1))
	switch {
	case err != nil:
		return nil, errors.New("broke off its answer (" + promReason(err) + ")")
	case len(body) > promMaxAnswer:
		return nil, fmt.Errorf("gave an answer larger than %d MiB", promMaxAnswer>>20)
	}
	series, err := promAnswer(body)
	if unusable := (promUnusable{}); errors.As(err, &unusable) {
		err = promUnusable{promStatus(res, body)}
	}
	return series, err
}

// promReason is why a request failed, without the URL, which its reader knows.
func promReason(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no host " + dns.Name
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || isTimeout(err):
		return "no answer in time"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed"
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// promStatus says of an answer that is not Prometheus's what it is.
func promStatus(res *http.Response, body []byte) string {
	switch {
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return fmt.Sprintf("wants a login (%s): write http://USER:PASSWORD@HOST", res.Status)
	case res.StatusCode == http.StatusServiceUnavailable:
		return strings.TrimSuffix(fmt.Sprintf("is not ready (%s): %s", res.Status, promLine(body)), ": ")
	}
	return fmt.Sprintf("is none: what answers there is something else (%s, %s)", res.Status, strings.TrimSuffix(res.Header.Get("Content-Type")+", "+promLine(body), ", "))
}

// promLine is the first line of a text, or what fits in one.
func promLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if r := []rune(line); len(r) > 80 {
		line = string(r[:80]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, line)
}

// promAnswer reads an answer of the HTTP API. Of whatever is no JSON of Prometheus's
// the error is promUnusable.
func promAnswer(body []byte) ([]promSeries, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	err := json.Unmarshal(body, &answer)
	switch {
	case err != nil && len(body) > 0 && body[0] == '{' && strings.Contains(err.Error(), "unexpected end"):
		return nil, errors.New("gave an answer that ends in the middle")
	case err != nil:
		return nil, promUnusable{err.Error()}
	case answer.Status == "error":
		return nil, errors.New("refuses the question: " + answer.Error)
	case answer.Status != "success":
		return nil, promUnusable{"no status"}
	case answer.Data.ResultType != "vector" && answer.Data.ResultType != "matrix":
		return nil, fmt.Errorf("gave an answer of a kind that is not known here: %q", answer.Data.ResultType)
	}
	var result []struct {
		Metric map[string]string
		Value  *promPoint // of a vector
		Values []promPoint
	}
	if err := json.Unmarshal(answer.Data.Result, &result); err != nil {
		return nil, fmt.Errorf("gave an answer that is not understood: %w", err)
	}
	all := make([]promSeries, len(result))
	for i, r := range result {
		all[i].labels = r.Metric
		if r.Value != nil {
			r.Values = []promPoint{*r.Value}
		}
		for _, v := range r.Values {
			all[i].points = append(all[i].points, Point(v))
		}
	}
	return all, nil
}

// promPoint is [seconds, "value"]. A value that is none, or beyond all measure, is a gap.
type promPoint Point

// UnmarshalJSON reads a pair.
func (p *promPoint) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	var seconds float64
	var text string
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("%.40s is no point in time", b)
	}
	if err := json.Unmarshal(pair[0], &seconds); err != nil || !(seconds >= 0 && seconds < 1e11) {
		return fmt.Errorf("%.40s is no time", pair[0])
	}
	if err := json.Unmarshal(pair[1], &text); err != nil {
		return fmt.Errorf("%.40s is no value", pair[1])
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%.40q is no number", text)
	}
	if !(math.Abs(v) < promMost) {
		v = math.NaN()
	}
	p.At, p.Value = time.UnixMilli(int64(math.Round(1000*seconds))).UTC(), v
	return nil
}
