package verdict

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// Samples is what k6 wrote of a run: k6 run --out json=FILE.
type Samples struct {
	Script     string // empty: the samples do not say
	Smoke      bool
	Start, End time.Time // of the first and the last sample, setup's included
	// Cut says that the samples end in the middle: k6 was killed, or the disk full.
	// Gates that hold then need not have held at the end.
	Cut bool

	Stages   []Stage // in the order in which they begin, with what k6 measured
	Sides    []Side
	Gates    []Gate
	Lateness *Spread
	Limit    *float64
	Series   []Series
	Missing  []string

	sinks  map[string]*k6Sink
	unseen []string // those of Missing that a summary makes good
}

// k6MaxLine is far above k6's lines, which are about 300 bytes; only with very long
// URLs among the tags may they be more.
const k6MaxLine = 1 << 20

// ReadK6 reads the samples that k6 run --out json=FILE wrote, compressed or not.
//
// When a sample was taken was read in k6's sources, and seen in files of 1.8.1 and
// 2.2.0, which agree: those of an HTTP request bear the time when its answer had been
// read to the end, to the nanosecond (so it was sent http_req_duration before that,
// less what connecting took); what a script counts, when it counted it, which is
// moments after that.
func ReadK6(r io.Reader) (*Samples, error) {
	in, err := k6Unzipped(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return nil, err
	}
	run := newK6Run()
	for n := 1; ; n++ {
		line, err := k6Line(in)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("k6's samples, line %d: %w", n, err)
			}
			run.cut = n
			break
		}
		if said := run.take(line); said != nil {
			if errors.Is(err, io.EOF) && n > 1 { // k6 ends each line
				run.cut = n
				break
			}
			return nil, fmt.Errorf("k6's samples, line %d: %w: give the file that k6 run --out json=FILE wrote", n, said)
		}
		if err != nil {
			break
		}
	}
	if run.last == 0 {
		return nil, errors.New("k6's samples: there is none in the file: give the one that k6 run --out json=FILE wrote")
	}
	return run.samples(), nil
}

func k6Unzipped(in *bufio.Reader) (*bufio.Reader, error) {
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	unzip, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("k6's samples: it begins like gzip, and is not (%w)", err)
	}
	return bufio.NewReaderSize(unzip, 64<<10), nil
}

// k6Line is valid until the next.
func k6Line(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > k6MaxLine {
			return nil, errors.New("it is longer than any of k6's")
		}
		line, err = in.ReadSlice('\n')
		long = append(long, line...)
	}
	return bytes.TrimSuffix(long, []byte("\n")), err
}

// k6Entry is a line: a metric, as it first occurs, or a sample of one.
type k6Entry struct {
	Type   string
	Metric string
	Data   struct {
		Time  time.Time
		Value float64
		Tags  map[string]string

		Type       string
		Thresholds []k6Threshold
		Submetrics []struct {
			Name string
			Tags map[string]string
		}
	}
}

// k6Threshold is a string, or an object where the run is to end early.
type k6Threshold string

func (t *k6Threshold) UnmarshalJSON(b []byte) error {
	var o struct{ Threshold string }
	if json.Unmarshal(b, (*string)(t)) == nil {
		return nil
	}
	err := json.Unmarshal(b, &o)
	*t = k6Threshold(o.Threshold)
	return err
}

// k6Run is a run as far as it has been read. Times are in nanoseconds since 1970, and
// of the nineteen samples that each request has, only what is needed is kept.
type k6Run struct {
	script      string
	smoke       bool
	first, last int64
	cut         int // the line that ends too early; 0: none
	stages      map[string]*k6Stage
	order       []*k6Stage
	announced   bool // some stage was
	counted     bool // the script counts its failures itself
	sinks       map[string]*k6Sink
	lateness    []float64
	limit       *float64
}

// k6Stage holds the samples of a stage.
type k6Stage struct {
	name, side string
	announced  bool
	begins     int64
	seconds    float64 // planned; 0: until its last request ends

	requests []k6Request
	ttft     []k6Value
	speed    []k6Value
	failed   []k6Value // 0 or 1, of each request

	unanswered int

	start, end int64 // in the end
}

type k6Request struct {
	end    int64
	ms     float64
	failed bool // by its status
}

func (r k6Request) start() int64 { return r.end - int64(min(r.ms, 1e9)*1e6) }

type k6Value struct {
	at int64
	v  float64
}

func newK6Run() *k6Run {
	return &k6Run{stages: map[string]*k6Stage{}, sinks: map[string]*k6Sink{}}
}

// take reads a line. Of those that nothing asks for, which are most, only the time.
func (run *k6Run) take(line []byte) error {
	if at, skip := run.skip(line); skip {
		return run.saw(at)
	}
	var e k6Entry
	if err := json.Unmarshal(line, &e); err != nil {
		if k6NoNumber(line) {
			return nil
		}
		return fmt.Errorf("it is no JSON of k6's (%w)", err)
	}
	switch {
	case e.Type == "Metric" && e.Metric != "":
		run.metric(&e)
		return nil
	case e.Type == "Point" && e.Metric != "":
		if err := run.saw(e.Data.Time); err != nil {
			return err
		}
		if math.Abs(e.Data.Value) > 1e18 {
			return fmt.Errorf("%g cannot be a value of %s", e.Data.Value, e.Metric)
		}
		run.sample(&e)
		return nil
	}
	return errors.New(`it is no "Metric" and no "Point"`)
}

// k6Wanted are the metrics that are looked at whatever the script's thresholds are.
var k6Wanted = map[string]bool{
	"http_req_duration": true, "ttft_ms": true, "tokens_per_second": true, "failed_requests": true,
	"stage_seconds": true, "arrival_lateness_ms": true, "limit_rps": true,
}

// k6Receiving is how long an answer took from its first byte on. k6 gives status 0 to
// all that it could not read to the end; of those, this is 0 where nothing came at all
// (its sources, lib/netext/httpext, and seen of 1.8.1 and 2.2.0).
const k6Receiving = "http_req_receiving"

// skip says whether a line is a sample that nothing asks for, without parsing all of
// it. Lines are as k6 writes them, or parsed in full.
func (run *k6Run) skip(line []byte) (at time.Time, yes bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"metric":"`))
	if !ok || !bytes.HasSuffix(rest, []byte("}}}")) {
		return at, false
	}
	metric, rest, ok := bytes.Cut(rest, []byte(`"`))
	if !ok || k6Wanted[string(metric)] || run.sinks[string(metric)] != nil || string(metric) == k6Receiving && bytes.Contains(rest, []byte(`"status":"0"`)) {
		return at, false
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"type":"Point","data":{"time":"`))
	when, _, closed := bytes.Cut(rest, []byte(`"`))
	if !ok || !closed {
		return at, false
	}
	return at, at.UnmarshalText(when) == nil
}

// k6NoNumber says that a line is no JSON because its value is no number: k6 before 2.2
// writes what a script divided by zero, and later ones leave it out.
func k6NoNumber(line []byte) bool {
	for _, v := range []string{`"value":+Inf,`, `"value":-Inf,`, `"value":NaN,`} {
		if bytes.Contains(line, []byte(v)) && json.Valid(bytes.Replace(line, []byte(v), []byte(`"value":0,`), 1)) {
			return true
		}
	}
	return false
}

// saw widens the run. The years are those that nanoseconds can count from 1970, half a
// run's worth of them either way.
func (run *k6Run) saw(at time.Time) error {
	if year := at.UTC().Year(); year < 1971 || year > 2100 {
		return fmt.Errorf("its time %s cannot be", at.Format(time.RFC3339))
	}
	ns := at.UnixNano()
	if run.first == 0 || ns < run.first {
		run.first = ns
	}
	run.last = max(run.last, ns)
	return nil
}

// metric is how k6 describes a metric before its first sample. The thresholds of parts
// of it ("ttft_ms{scenario:users_10}") are not there, only the parts.
func (run *k6Run) metric(e *k6Entry) {
	if len(e.Data.Thresholds) == 0 && len(e.Data.Submetrics) == 0 || run.sinks[e.Metric] != nil {
		return
	}
	s := &k6Sink{kind: e.Data.Type, conditions: e.Data.Thresholds}
	for _, sub := range e.Data.Submetrics {
		part := &k6Sink{kind: e.Data.Type, tags: sub.Tags}
		s.parts = append(s.parts, part)
		run.sinks[sub.Name] = part
	}
	run.sinks[e.Metric] = s
}

func (run *k6Run) sample(e *k6Entry) {
	v, tags := e.Data.Value, e.Data.Tags
	at := e.Data.Time.UnixNano()
	run.smoke = run.smoke || tags["run"] == "smoke"
	if s := run.sinks[e.Metric]; s != nil {
		s.add(v, tags)
	}
	switch e.Metric {
	case "arrival_lateness_ms":
		run.lateness = append(run.lateness, v)
	case "limit_rps":
		run.limit = &v
	}
	name := tags["stage"]
	if name == "" {
		name = tags["scenario"]
	}
	if name == "" || strings.HasPrefix(tags["group"], "::setup") || strings.HasPrefix(tags["group"], "::teardown") {
		return
	}
	switch e.Metric {
	case "stage_seconds":
		run.announce(run.stage(name, tags), at, v, tags)
	case "http_req_duration":
		s := run.stage(name, tags)
		s.requests = append(s.requests, k6Request{at, max(0, v), tags["expected_response"] == "false"})
	case k6Receiving:
		if tags["status"] == "0" && v == 0 {
			run.stage(name, tags).unanswered++
		}
	case "ttft_ms":
		s := run.stage(name, tags)
		s.ttft = append(s.ttft, k6Value{at, v})
	case "tokens_per_second":
		s := run.stage(name, tags)
		s.speed = append(s.speed, k6Value{at, v})
	case "failed_requests":
		run.counted = true
		s := run.stage(name, tags)
		s.failed = append(s.failed, k6Value{at, v})
	}
}

func (run *k6Run) stage(name string, tags map[string]string) *k6Stage {
	s := run.stages[name]
	if s == nil {
		s = &k6Stage{name: name}
		run.stages[name] = s
		run.order = append(run.order, s)
	}
	if s.side == "" {
		s.side = tags["side"]
	}
	return s
}

// announce: of a stage that is announced twice the first begin counts, and the last
// length: a step that broke off says so again.
func (run *k6Run) announce(s *k6Stage, at int64, seconds float64, tags map[string]string) {
	run.announced = true
	if tags["script"] != "" {
		run.script = tags["script"]
	}
	s.seconds = min(max(0, seconds), 1e9)
	if s.announced {
		return
	}
	s.announced = true
	begins, err := strconv.ParseFloat(tags["begins"], 64)
	if err != nil || !(begins > 0 && begins < 1e9) {
		begins = 0
	}
	s.begins = at + int64(begins*1e9)
}
