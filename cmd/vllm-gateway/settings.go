package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/config"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// fileKey is a flag that the file can set too: by which key, and which field of the
// gateway's Config or of flags it is. take gives the line of the value; 0 where the
// file has none, or where it has one for each item of a list.
type fileKey struct {
	flag, key, field string
	take             func(*flags, *config.File) (line int)
}

// fromFile are all of them. A flag that is not here must be in the test's flagOnly.
var fromFile = []fileKey{
	{"listen", "listen", "Listen", func(f *flags, c *config.File) int { return take(&f.Listen, c.Listen) }},
	{"metrics-listen", "metrics_listen", "MetricsListen", func(f *flags, c *config.File) int { return take(&f.MetricsListen, c.MetricsListen) }},
	{"tls-cert", "tls.cert", "TLSCert", func(f *flags, c *config.File) int { return take(&f.TLSCert, c.TLS.Value.Cert) }},
	{"tls-key", "tls.key", "TLSKey", func(f *flags, c *config.File) int { return take(&f.TLSKey, c.TLS.Value.Key) }},
	{"backend", "backends[].url", "Backends", takeBackends},
	{"weight", "backends[].weight", "Weights", takeWeights},
	{"alias", "models.*.aliases", "Aliases", takeAliases},
	{"fallback", "models.*.fallback", "Fallbacks", takeFallbacks},
	{"routing", "routing.policy", "Routing", func(f *flags, c *config.File) int { return take(&f.Routing, c.Routing.Value.Policy) }},
	{"session-header", "routing.session_header", "SessionHeader", func(f *flags, c *config.File) int { return take(&f.SessionHeader, c.Routing.Value.SessionHeader) }},
	{"prefix-bytes", "routing.prefix_bytes", "PrefixBytes", func(f *flags, c *config.File) int { return takeInt(&f.PrefixBytes, c.Routing.Value.PrefixBytes) }},
	{"max-in-flight", "admission.max_in_flight", "MaxInFlight", func(f *flags, c *config.File) int { return takeInt(&f.MaxInFlight, c.Admission.Value.MaxInFlight) }},
	{"max-waiting", "admission.max_waiting", "MaxWaiting", func(f *flags, c *config.File) int { return takeInt(&f.MaxWaiting, c.Admission.Value.MaxWaiting) }},
	{"max-wait", "admission.max_wait", "MaxWait", func(f *flags, c *config.File) int { return take(&f.MaxWait, c.Admission.Value.MaxWait) }},
	{"comment-every", "admission.comment_every", "CommentEvery", func(f *flags, c *config.File) int { return take(&f.CommentEvery, c.Admission.Value.CommentEvery) }},
	{"body-memory", "admission.body_memory", "BodyMemory", func(f *flags, c *config.File) int { return take(&f.BodyMemory, c.Admission.Value.BodyMemory) }},
	{"max-body", "admission.max_body", "MaxBody", func(f *flags, c *config.File) int { return take(&f.MaxBody, c.Admission.Value.MaxBody) }},
	{"first-byte-timeout", "timeouts.first_byte", "FirstByteTimeout", func(f *flags, c *config.File) int { return take(&f.FirstByteTimeout, c.Timeouts.Value.FirstByte) }},
	{"stream-idle-timeout", "timeouts.stream_idle", "StreamIdleTimeout", func(f *flags, c *config.File) int { return take(&f.StreamIdleTimeout, c.Timeouts.Value.StreamIdle) }},
	{"drain-delay", "timeouts.drain_delay", "DrainDelay", func(f *flags, c *config.File) int { return take(&f.DrainDelay, c.Timeouts.Value.DrainDelay) }},
	{"drain-timeout", "timeouts.drain", "DrainTimeout", func(f *flags, c *config.File) int { return take(&f.DrainTimeout, c.Timeouts.Value.Drain) }},
	// The keys themselves, and what they may, are read where the callers are made.
	{"api-key", "keys[].hash", "Callers", func(*flags, *config.File) int { return 0 }},
}

func take[T any](to *T, from config.At[T]) int {
	if from.Set() {
		*to = from.Value
	}
	return from.Line
}

func takeInt(to *int, from config.At[int64]) int {
	if from.Set() {
		*to = int(from.Value)
	}
	return from.Line
}

func takeBackends(f *flags, c *config.File) int {
	if c.Backends.Set() {
		f.Backend = nil
		for _, b := range c.Backends.Value {
			f.Backend = append(f.Backend, b.URL.Value)
		}
	}
	return c.Backends.Line
}

func takeWeights(f *flags, c *config.File) int {
	f.Weight = nil
	for _, b := range c.Backends.Value {
		if b.Weight.Set() {
			set(&f.Weight, b.URL.Value, int(b.Weight.Value))
		}
	}
	return 0
}

func takeAliases(f *flags, c *config.File) int {
	f.Alias = nil
	for _, m := range c.Models.Value {
		for _, a := range m.Aliases.Value {
			set(&f.Alias, a.Value, m.Name.Value)
		}
	}
	return 0
}

func takeFallbacks(f *flags, c *config.File) int {
	f.Fallback = nil
	for _, m := range c.Models.Value {
		if m.Fallback.Set() {
			set(&f.Fallback, m.Name.Value, m.Fallback.Value)
		}
	}
	return 0
}

func set[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// settings are what the program runs by: the flags, where nobody gave them what the
// file says, and what only the file can say.
type settings struct {
	flags
	typed   flags // before the file
	given   map[string]bool
	file    *config.File // what of it counts; empty without one
	lines   map[string]int
	limits  config.Limits // of keys that have none of their own
	gateway gateway.Config
	// unused are the file's keys that flags took the place of, unusedBackends its
	// backends.
	unused, unusedBackends int
	// problems are what is wrong with the file by itself.
	problems []config.Problem
}

// settle reads what there is to be read, and puts it together. The error has all that
// is wrong, a line for each.
func settle(f flags, given map[string]bool, files *daemon.Files) (*settings, error) {
	s := &settings{flags: f, typed: f, given: given, file: &config.File{}, lines: map[string]int{}}
	if f.Config == "" && given["config"] { // as of a variable that was to be filled in
		return nil, errors.New("--config: no file is named, and without one everybody might use the gateway; name one, or leave out the flag and VLLM_GATEWAY_CONFIG")
	}
	if f.Config != "" {
		data, err := files.Read(f.Config, config.MaxSize)
		if err != nil {
			if given["config"] {
				err = fmt.Errorf("--config: %s: %w", f.Config, err)
			} else {
				err = fmt.Errorf("%s: %w", f.Config, err)
			}
			return nil, err
		}
		parsed, err := config.Parse(f.Config, data)
		if parsed == nil {
			return nil, err
		}
		s.file = parsed
		if problems, ok := errors.AsType[*config.Errors](err); ok {
			s.problems = problems.Problems
		}
	}
	s.merge()
	var wrong faults
	s.callers(&wrong)
	s.backendKeys(files, &wrong)
	s.sharedLimits(files, &wrong)
	s.check(&wrong)
	err := s.explain(errors.Join(append(wrong, s.config(nil).Validate())...))
	if err != nil {
		return nil, err
	}
	// What is kept of a file of many keys is what the gateway needs.
	s.file.Keys = config.At[[]config.Key]{Line: s.file.Keys.Line}
	return s, nil
}

// merge puts what the file says in the place of flags that nobody gave. A flag that
// was given takes the place of all that the file says on its matter.
func (s *settings) merge() {
	c := s.file
	if s.given["backend"] {
		s.unusedBackends = len(c.Backends.Value)
		c.Backends = config.At[[]config.Backend]{}
	}
	if s.given["weight"] {
		for i := range c.Backends.Value {
			c.Backends.Value[i].Weight = config.At[int64]{}
		}
	}
	if s.given["api-key"] {
		s.unused = len(c.Keys.Value)
		c.Keys = config.At[[]config.Key]{}
	}
	for i := range c.Models.Value {
		if s.given["alias"] {
			c.Models.Value[i].Aliases = config.At[[]config.At[string]]{}
		}
		if s.given["fallback"] {
			c.Models.Value[i].Fallback = config.At[string]{}
		}
	}
	for i, name := range []*config.At[string]{&c.TLS.Value.Cert, &c.TLS.Value.Key} {
		if name.Set() && !s.given[[]string{"tls-cert", "tls-key"}[i]] {
			name.Value = s.beside(name.Value)
		}
	}
	for _, k := range fromFile {
		if !s.given[k.flag] {
			if line := k.take(&s.flags, c); line > 0 {
				s.lines[k.field] = line
			}
		}
	}
	s.limits = c.Limits.Value
}

// beside gives the path of a file that the configuration file names.
func (s *settings) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.Config), path)
}

// checkKey says what is wrong with a key, and not what it is.
func checkKey(key string) error {
	switch {
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("has a space, a line break or a letter that is not ASCII in it; a header cannot have it")
	case len(key) < secret.MinKey:
		return fmt.Errorf("has less than %d characters; what is so short can be guessed, and its hash turned back: take a key that was drawn at random, such as vllm-gateway hash-key makes", secret.MinKey)
	}
	return nil
}

// callers makes callers of --api-key, or of the file's keys.
func (s *settings) callers(wrong *faults) {
	c := &s.gateway
	if s.given["api-key"] && len(s.APIKey) == 0 { // as of a variable that was to be filled in
		wrong.add("", "--api-key: there is no key in it, and without any everybody might use the gateway; give one, or leave out the flag and VLLM_GATEWAY_API_KEY")
	}
	for i, k := range s.APIKey {
		text := k.Reveal()
		hash := secret.HashOf(text)
		if strings.HasPrefix(text, "sha256:") {
			var err error
			if hash, err = secret.ParseHash(text); err != nil {
				wrong.add("", "--api-key: key %d begins like a hash and is none: sha256: and 64 hexadecimal digits, as vllm-gateway hash-key prints it", i+1)
			}
		} else if err := checkKey(text); err != nil {
			wrong.add("", "--api-key: key %d %w", i+1, err)
		}
		caller := gateway.Caller{Name: fmt.Sprintf("key-%d", i+1), Keys: []secret.Hash{hash}}
		s.limit(&caller, config.Limits{})
		c.Callers = append(c.Callers, caller)
	}
	for _, k := range s.file.Keys.Value {
		caller := gateway.Caller{Name: k.Name.Value, Priority: k.Priority.Value}
		for _, h := range k.Hashes.Value {
			caller.Keys = append(caller.Keys, h.Value)
		}
		for _, m := range k.Models.Value {
			caller.Models = append(caller.Models, m.Value)
		}
		s.limit(&caller, k.Limits.Value)
		c.Callers = append(c.Callers, caller)
	}
	if s.file.Limits.Set() && len(c.Callers) == 0 {
		wrong.add("Limits", "limits are for keys, and there are none; add keys, or leave the limits out")
	}
}

// limit gives a caller its own limits, and for the rest those of all.
func (s *settings) limit(c *gateway.Caller, own config.Limits) {
	or := func(own, all config.At[int64]) int64 {
		if own.Set() {
			return own.Value
		}
		return all.Value
	}
	c.Limits = limits.Limits{
		Requests:  or(own.RequestsPerMinute, s.limits.RequestsPerMinute),
		Tokens:    or(own.TokensPerMinute, s.limits.TokensPerMinute),
		DayTokens: or(own.TokensPerDay, s.limits.TokensPerDay),
	}
	c.Concurrency = int(or(own.Concurrency, s.limits.Concurrency))
}

// maxSecret bounds a file with a secret in it.
const maxSecret = 16 << 10

// readSecret gives what is in a file, without the line break at its end.
func readSecret(files *daemon.Files, path string) (secret.Text, error) {
	data, err := files.Read(path, maxSecret)
	if err != nil {
		return secret.Text{}, err
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return secret.Text{}, errors.New("it is empty")
	}
	return secret.New(text), nil
}

func (s *settings) backendKeys(files *daemon.Files, wrong *faults) {
	for _, b := range s.file.Backends.Value {
		if !b.APIKeyFile.Set() {
			continue
		}
		key, err := readSecret(files, s.beside(b.APIKeyFile.Value))
		if err != nil {
			wrong.add("BackendKeys["+b.URL.Value+"]", "%s: %w", b.APIKeyFile.Value, err)
			continue
		}
		set(&s.gateway.BackendKeys, b.URL.Value, key)
	}
	if s.BackendKeyFile == "" {
		return
	}
	key, err := readSecret(files, s.BackendKeyFile)
	if err != nil {
		wrong.add("", "--backend-key-file: %s: %w", s.BackendKeyFile, err)
		return
	}
	for _, b := range s.Backend {
		if s.gateway.BackendKeys[b].IsZero() {
			set(&s.gateway.BackendKeys, b, key)
		}
	}
}

func (s *settings) sharedLimits(files *daemon.Files, wrong *faults) {
	if !s.file.SharedLimits.Set() {
		return
	}
	from := s.file.SharedLimits.Value
	to := &limits.Options{URL: from.Redis.Value, Timeout: from.Timeout.Value}
	if from.PasswordFile.Set() {
		password, err := readSecret(files, s.beside(from.PasswordFile.Value))
		if err != nil {
			wrong.add("SharedLimits.Password", "%s: %w", from.PasswordFile.Value, err)
		}
		to.Password = password
	}
	if from.Timeout.Set() && from.Timeout.Value == 0 {
		wrong.add("SharedLimits.Timeout", "no time is not enough to ask Redis; write one such as 50ms")
	}
	s.gateway.SharedLimits = to
	s.gateway.FailOpen = from.Fail.Value == "open"
}

// check finds what is wrong with what is not the gateway's.
func (s *settings) check(wrong *faults) {
	if (s.TLSCert == "") != (s.TLSKey == "") {
		wrong.clash("TLSCert", "TLSKey", "--tls-cert and --tls-key go together: give both or none")
	}
	if s.DrainDelay < 0 || s.DrainTimeout < 0 {
		wrong.add("", "--drain-delay and --drain-timeout must not be negative")
	}
	for _, a := range []struct{ field, flag, addr string }{{"Listen", "--listen", s.Listen}, {"MetricsListen", "--metrics-listen", s.MetricsListen}} {
		if a.addr == "" && a.field == "MetricsListen" {
			continue
		}
		if err := daemon.CheckListen(a.addr); err != nil {
			wrong.add(a.field, "%s%w", s.prefix(a.field, a.flag), err)
		}
	}
	if s.MetricsListen != "" && sameAddr(s.Listen, s.MetricsListen) {
		wrong.clash("MetricsListen", "Listen", "%s%s is the address of everything else; give metrics a port of their own", s.prefix("MetricsListen", "--metrics-listen"), s.MetricsListen)
	}
}

func sameAddr(a, b string) bool {
	host, port, err := net.SplitHostPort(a)
	otherHost, otherPort, otherErr := net.SplitHostPort(b)
	all := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return err == nil && otherErr == nil && port == otherPort && port != "0" && (host == otherHost || all(host) && all(otherHost))
}

// checkTLS reads the certificate, which the server will do again.
func (s *settings) checkTLS(files *daemon.Files) error {
	if s.TLSCert == "" {
		return nil
	}
	var wrong faults
	if _, err := daemon.ReadCertificate(files, s.TLSCert, s.TLSKey); err != nil {
		wrong.clash("TLSCert", "TLSKey", "%w", err)
	}
	return s.explain(errors.Join(wrong...))
}

func (s *settings) warn(log *slog.Logger) {
	if s.unused > 0 {
		log.Warn("the keys of the file are not used: --api-key takes their place", "file", s.Config, "keys", s.unused)
	}
	if s.unusedBackends > 0 {
		log.Warn("the backends of the file are not used: --backend or VLLM_GATEWAY_BACKEND takes their place", "file", s.Config, "backends", s.unusedBackends)
	}
}

// config gives the gateway's part.
func (s *settings) config(log *slog.Logger) gateway.Config {
	c := s.gateway
	c.Backends = s.Backend
	c.Weights = s.Weight
	c.Aliases = s.Alias
	c.Fallbacks = s.Fallback
	c.Routing = s.Routing
	c.SessionHeader = s.SessionHeader
	c.PrefixBytes = s.PrefixBytes
	c.MaxInFlight = s.MaxInFlight
	c.MaxWaiting = s.MaxWaiting
	c.MaxWait = s.MaxWait
	c.CommentEvery = s.CommentEvery
	c.BodyMemory = int64(s.BodyMemory)
	c.FirstByteTimeout = s.FirstByteTimeout
	c.StreamIdleTimeout = s.StreamIdleTimeout
	c.MaxBody = int64(s.MaxBody)
	c.NoMetrics = s.MetricsListen != ""
	c.Version = daemon.Version()
	c.Log = log
	if c.SharedLimits != nil {
		shared := *c.SharedLimits
		shared.Log = log
		c.SharedLimits = &shared
	}
	return c
}
