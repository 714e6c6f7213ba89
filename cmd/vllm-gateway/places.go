package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/config"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
)

// faults gathers what is wrong, as the gateway's Validate does.
type faults []error

// add names a field of the gateway's Config, or of flags; "" for what no file says.
func (f *faults) add(field, format string, args ...any) { f.clash(field, "", format, args...) }

func (f *faults) clash(field, other, format string, args ...any) {
	*f = append(*f, &gateway.FieldError{Field: field, Other: other, Err: fmt.Errorf(format, args...)})
}

// place is where the file says something.
type place struct {
	key  string
	line int
}

// explain says of each thing that is wrong on which line of the file it stands, or of
// which flag it is.
func (s *settings) explain(err error) error {
	if err == nil && len(s.problems) == 0 {
		return nil
	}
	var places map[string]place
	inFile := slices.Clone(s.problems)
	var others []error
	for _, one := range flatten(err) {
		fault, ok := errors.AsType[*gateway.FieldError](one)
		if !ok {
			others = append(others, one)
			continue
		}
		if places == nil {
			places = s.places()
		}
		at, found := find(places, fault.Field)
		other, clashes := find(places, fault.Other)
		text := fault.Error()
		switch _, exact := places[fault.Field]; {
		case len(s.problems) > 0 && (!exact || fault.Other != "" && !clashes || needKeys[fault.Field]):
			continue // it may follow from what could not be read
		case !found && !clashes:
			others = append(others, s.ofFlag(fault))
			continue
		case !found:
			at = other
		case clashes && at.line != other.line:
			text += fmt.Sprintf(" (see line %d)", other.line)
		}
		inFile = append(inFile, config.Problem{Line: at.line, Key: at.key, Text: text})
	}
	return errors.Join(append([]error{config.NewErrors(s.Config, inFile)}, others...)...)
}

// ofFlag names the flag that says what is wrong, unless the text does.
func (s *settings) ofFlag(fault *gateway.FieldError) error {
	if strings.HasPrefix(fault.Error(), "--") {
		return fault
	}
	for _, field := range []string{fault.Field, fault.Other} {
		field, _, _ = strings.Cut(field, "[")
		for _, k := range fromFile {
			if k.field == field && s.given[k.flag] {
				return fmt.Errorf("--%s: %w", k.flag, fault)
			}
		}
	}
	return fault
}

// needKeys are the fields that are wrong where there are no keys.
var needKeys = map[string]bool{"Limits": true, "SharedLimits": true}

// flatten gives the errors that were joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, flatten(one)...)
	}
	return all
}

// find gives the place of a field, or of what it is in.
func find(places map[string]place, field string) (place, bool) {
	for field != "" {
		if at, ok := places[field]; ok {
			return at, true
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return place{}, false
}

// where names a setting as it was given: the key of the file, or the flag.
func (s *settings) where(field, flag string) string {
	if line := s.lines[field]; line > 0 {
		for _, k := range fromFile {
			if k.field == field {
				return fmt.Sprintf("%s in %s", k.key, s.Config)
			}
		}
	}
	return flag
}

// prefix names the flag of a setting that the file does not say; what the file says is
// named by its line.
func (s *settings) prefix(field, flag string) string {
	if s.lines[field] > 0 {
		return ""
	}
	return flag + ": "
}

// places says for each field of the gateway's Config, and of flags, where the file
// says it.
func (s *settings) places() map[string]place {
	p := map[string]place{}
	put := func(field, key string, line int) {
		if line > 0 {
			p[field] = place{key, line}
		}
	}
	for _, k := range fromFile {
		key, _, _ := strings.Cut(k.key, "[]")
		put(k.field, key, s.lines[k.field])
	}
	for i, b := range s.file.Backends.Value {
		put(fmt.Sprintf("Backends[%d]", i), fmt.Sprintf("backends[%d].url", i), b.URL.Line)
		put("Weights["+b.URL.Value+"]", fmt.Sprintf("backends[%d].weight", i), b.Weight.Line)
		put("BackendKeys["+b.URL.Value+"]", fmt.Sprintf("backends[%d].api_key_file", i), b.APIKeyFile.Line)
	}
	for _, m := range s.file.Models.Value {
		for i, a := range m.Aliases.Value {
			put("Aliases["+a.Value+"]", fmt.Sprintf("models.%s.aliases[%d]", m.Name.Value, i), a.Line)
		}
		put("Fallbacks["+m.Name.Value+"]", "models."+m.Name.Value+".fallback", m.Fallback.Line)
	}
	put("Limits", "limits", s.file.Limits.Line)
	put("SharedLimits", "shared_limits", s.file.SharedLimits.Line)
	shared := s.file.SharedLimits.Value
	put("SharedLimits.URL", "shared_limits.redis", shared.Redis.Line)
	put("SharedLimits.Password", "shared_limits.password_file", shared.PasswordFile.Line)
	put("SharedLimits.Timeout", "shared_limits.timeout", shared.Timeout.Line)
	put("Callers", "keys", s.file.Keys.Line)
	for i, k := range s.file.Keys.Value {
		field, key := fmt.Sprintf("Callers[%d]", i), fmt.Sprintf("keys[%d]", i)
		put(field, key, k.Line)
		put(field+".Name", key+".name", k.Name.Line)
		for j, h := range k.Hashes.Value {
			put(fmt.Sprintf("%s.Keys[%d]", field, j), key+".hash", h.Line)
		}
		for j, m := range k.Models.Value {
			put(fmt.Sprintf("%s.Models[%d]", field, j), fmt.Sprintf("%s.models[%d]", key, j), m.Line)
		}
		put(field+".Priority", key+".priority", k.Priority.Line)
		put(field+".Concurrency", key+".limits.concurrency", k.Limits.Value.Concurrency.Line)
		put(field+".Limits.Requests", key+".limits.requests_per_minute", k.Limits.Value.RequestsPerMinute.Line)
		put(field+".Limits.Tokens", key+".limits.tokens_per_minute", k.Limits.Value.TokensPerMinute.Line)
		put(field+".Limits.DayTokens", key+".limits.tokens_per_day", k.Limits.Value.TokensPerDay.Line)
	}
	return p
}
