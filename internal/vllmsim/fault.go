package vllmsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of fault.
const (
	slowFirstToken = "slow-first-token"
	stall          = "stall"
	cut            = "cut"
	inStreamError  = "error"
	reject         = "reject"
	slowHealth     = "slow-health"
	unhealthy      = "unhealthy"
	crash          = "crash"
)

// faultKeys are the kinds and the keys that each takes.
var faultKeys = map[string][]string{
	slowFirstToken: {"delay", "share"},
	stall:          {"after", "share"},
	cut:            {"after", "share"},
	inStreamError:  {"after", "share"},
	reject:         {"status", "share"},
	slowHealth:     {"delay", "share"},
	unhealthy:      {"share"},
	crash:          {},
}

// Fault is something that goes wrong on request. Kind is one of
//
//	slow-first-token  the first token comes Delay later
//	stall             after so many events of a stream nothing more comes
//	cut               after so many events the connection is aborted
//	error             after so many events the stream reports an error
//	reject            the request is answered with an HTTP error
//	slow-health       /health answers Delay later
//	unhealthy         /health answers 503
//	crash             the process ends at once
//
// On requests that do not stream, stall never answers, cut aborts the
// connection and error answers 500; they ignore After.
type Fault struct {
	Kind string
	// Delay of slow-first-token and slow-health; required there.
	Delay time.Duration
	// After counts the events of a stream that the client still gets; 0 is
	// none but the headers.
	After int
	// Status of reject, 400 to 599; 0 is 503.
	Status int
	// Share of the requests that it hits, above 0 to 1, evenly spread: with
	// 0.1 every tenth. 0 is 1, all of them.
	Share float64
}

// UnmarshalText reads KIND[,KEY=VALUE…], as in "stall,after=3,share=0.1".
// Errors name what is wrong and what is allowed.
func (f *Fault) UnmarshalText(text []byte) error {
	kind, rest, more := strings.Cut(string(text), ",")
	*f = Fault{Kind: kind}
	if err := f.known(); err != nil {
		return err
	}
	for more {
		var pair string
		pair, rest, more = strings.Cut(rest, ",")
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("fault %s: %q is not KEY=VALUE; %s", kind, pair, f.allowed())
		}
		if err := f.set(key, value); err != nil {
			return err
		}
	}
	return f.check()
}

func (f *Fault) known() error {
	if _, ok := faultKeys[f.Kind]; ok {
		return nil
	}
	var kinds []string
	for kind := range faultKeys {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return fmt.Errorf("no fault kind %q; use one of %s", f.Kind, strings.Join(kinds, ", "))
}

func (f *Fault) allowed() string {
	if keys := faultKeys[f.Kind]; len(keys) > 0 {
		return "it takes " + strings.Join(keys, ", ")
	}
	return "it takes no keys"
}

func (f *Fault) set(key, value string) (err error) {
	if !slices.Contains(faultKeys[f.Kind], key) {
		return fmt.Errorf("fault %s: no key %q; %s", f.Kind, key, f.allowed())
	}
	switch key {
	case "delay":
		f.Delay, err = time.ParseDuration(value)
	case "after":
		f.After, err = strconv.Atoi(value)
	case "status":
		f.Status, err = strconv.Atoi(value)
	case "share":
		f.Share, err = strconv.ParseFloat(value, 64)
		if err == nil && f.Share == 0 {
			return fmt.Errorf("fault %s: share is 0; use above 0 to 1", f.Kind)
		}
	}
	if err != nil {
		return fmt.Errorf("fault %s: %s=%s: use a %s", f.Kind, key, value, keyForm[key])
	}
	return nil
}

var keyForm = map[string]string{
	"delay":  "duration such as 1.5s",
	"after":  "whole number of events",
	"status": "HTTP status from 400 to 599",
	"share":  "number above 0 to 1",
}

func (f Fault) check() error {
	if err := f.known(); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("fault "+f.Kind+": "+format, args...)
	}
	switch {
	case f.Delay < 0:
		return bad("delay is %v; use 0s or more", f.Delay)
	case f.Delay == 0 && slices.Contains(faultKeys[f.Kind], "delay"):
		return bad("needs a delay, such as delay=1.5s")
	case f.After < 0:
		return bad("after is %d; use 0 or more", f.After)
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return bad("status is %d; use 400 to 599", f.Status)
	case !(f.Share >= 0 && f.Share <= 1):
		return bad("share is %v; use above 0 to 1", f.Share)
	}
	return nil
}

// UnmarshalJSON reads {"kind":…} with the kind's keys; a delay is a string such
// as "1.5s".
func (f *Fault) UnmarshalJSON(data []byte) error {
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	kind, _ := fields["kind"].(string)
	*f = Fault{Kind: kind}
	if err := f.known(); err != nil {
		return err
	}
	delete(fields, "kind")
	for key, value := range fields {
		text := fmt.Sprint(value)
		if number, ok := value.(float64); ok {
			text = strconv.FormatFloat(number, 'f', -1, 64)
		}
		if err := f.set(key, text); err != nil {
			return err
		}
	}
	return f.check()
}

// MarshalJSON gives the kind and the keys that it takes.
func (f Fault) MarshalJSON() ([]byte, error) {
	values := map[string]any{"delay": f.Delay.String(), "after": f.After, "status": f.status(), "share": f.share()}
	fields := map[string]any{"kind": f.Kind}
	for _, key := range faultKeys[f.Kind] {
		fields[key] = values[key]
	}
	return json.Marshal(fields)
}

func (f Fault) share() float64 {
	if f.Share == 0 {
		return 1
	}
	return f.Share
}

func (f Fault) status() int {
	if f.Status == 0 {
		return http.StatusServiceUnavailable
	}
	return f.Status
}

// hits says whether the fault hits the nth request, counted from 1. The small
// addend makes 0.1 hit the tenth in spite of binary fractions.
func (f Fault) hits(n int) bool {
	count := func(n int) float64 { return math.Floor(float64(n)*f.share() + 1e-9) }
	return count(n) > count(n-1)
}

// decodeFaults reads the list that PUT /sim/faults takes.
func decodeFaults(body []byte) ([]Fault, error) {
	var list []Fault
	if err := json.Unmarshal(body, &list); err != nil {
		var syntax *json.SyntaxError
		var form *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &form) {
			return nil, fmt.Errorf(`the body is not a JSON list such as [{"kind":"reject","status":503,"share":0.1}]: %w`, err)
		}
		return nil, err
	}
	return list, nil
}
