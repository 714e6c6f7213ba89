// Package config reads the file that a gateway is configured by. It knows what may
// stand in the file, on which line each value stands, and how to say what is wrong
// with it; it opens no files itself, and knows nothing of flags.
package config

import (
	"sync"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// At is a value, and the line that it is on. The zero At: the file does not say.
type At[T any] struct {
	Value T
	Line  int
}

// Set reports whether the file says it.
func (a At[T]) Set() bool { return a.Line > 0 }

// File is what a file says. docs/configuration.md has what each key means.
type File struct {
	Listen        At[string]
	MetricsListen At[string]
	TLS           At[TLS]
	Backends      At[[]Backend]
	Models        At[[]Model]
	Routing       At[Routing]
	Admission     At[Admission]
	Timeouts      At[Timeouts]
	Limits        At[Limits]
	SharedLimits  At[SharedLimits]
	Keys          At[[]Key]
}

// TLS names two PEM files. Names of files are as they are written: a relative one is
// relative to the file's own folder, wherever the process was started.
type TLS struct{ Cert, Key At[string] }

// Backend is one server, or one name for several.
type Backend struct {
	Line       int
	URL        At[string]
	Weight     At[int64]
	APIKeyFile At[string]
}

// Model is what the file says of a model.
type Model struct {
	Name     At[string]
	Aliases  At[[]At[string]]
	Fallback At[string]
}

// Routing says how a backend is chosen.
type Routing struct {
	Policy, SessionHeader At[string]
	PrefixBytes           At[int64]
}

// Admission says what is let in, and what waits.
type Admission struct {
	MaxInFlight, MaxWaiting At[int64]
	MaxWait, CommentEvery   At[time.Duration]
	BodyMemory, MaxBody     At[daemon.Bytes]
}

// Timeouts say how long things may take.
type Timeouts struct {
	FirstByte, StreamIdle, DrainDelay, Drain At[time.Duration]
}

// Limits are what one key may use. Of each, 0 is no limit.
type Limits struct {
	RequestsPerMinute, TokensPerMinute, TokensPerDay, Concurrency At[int64]
}

// SharedLimits say where limits are counted together with other gateways.
type SharedLimits struct {
	Redis, PasswordFile At[string]
	Timeout             At[time.Duration]
	Fail                At[string] // open or closed
}

// Key is who may use the gateway, and how much.
type Key struct {
	Line     int
	Name     At[string]
	Hashes   At[[]At[secret.Hash]]
	Models   At[[]At[string]]
	Priority At[string]
	Limits   At[Limits]
}

// MaxSize is how large a file may be, in bytes: some 300,000 keys.
const MaxSize = 32 << 20

// The keys of the file, all of them, as docs/configuration.md lists them.
var fileKeys = object[File]{
	text("listen", func(f *File) *At[string] { return &f.Listen }),
	text("metrics_listen", func(f *File) *At[string] { return &f.MetricsListen }),
	section("tls", tlsKeys, func(f *File) *At[TLS] { return &f.TLS }),
	items("backends", "- url: http://10.0.0.1:8000", backendKeys, func(f *File) *At[[]Backend] { return &f.Backends }, func(b *Backend, line int) { b.Line = line }),
	named("models", "Qwen/Qwen3-8B", modelKeys, func(f *File) *At[[]Model] { return &f.Models }, func(m *Model) *At[string] { return &m.Name }),
	section("routing", routingKeys, func(f *File) *At[Routing] { return &f.Routing }),
	section("admission", admissionKeys, func(f *File) *At[Admission] { return &f.Admission }),
	section("timeouts", timeoutKeys, func(f *File) *At[Timeouts] { return &f.Timeouts }),
	section("limits", limitKeys, func(f *File) *At[Limits] { return &f.Limits }),
	section("shared_limits", sharedKeys, func(f *File) *At[SharedLimits] { return &f.SharedLimits }),
	hidden(items("keys", "- {name: alice, hash: sha256:…}", keyKeys, func(f *File) *At[[]Key] { return &f.Keys }, func(k *Key, line int) { k.Line = line })),
}

var tlsKeys = object[TLS]{
	must("it goes with key", text("cert", func(t *TLS) *At[string] { return &t.Cert })),
	must("it goes with cert", text("key", func(t *TLS) *At[string] { return &t.Key })),
}

var backendKeys = object[Backend]{
	must("name the server, as http://host:port", text("url", func(b *Backend) *At[string] { return &b.URL })),
	whole("weight", "2", maxCount, func(b *Backend) *At[int64] { return &b.Weight }),
	text("api_key_file", func(b *Backend) *At[string] { return &b.APIKeyFile }),
}

var modelKeys = object[Model]{
	texts("aliases", func(m *Model) *At[[]At[string]] { return &m.Aliases }),
	text("fallback", func(m *Model) *At[string] { return &m.Fallback }),
}

var routingKeys = object[Routing]{
	text("policy", func(r *Routing) *At[string] { return &r.Policy }),
	text("session_header", func(r *Routing) *At[string] { return &r.SessionHeader }),
	whole("prefix_bytes", "1024", maxCount, func(r *Routing) *At[int64] { return &r.PrefixBytes }),
}

var admissionKeys = object[Admission]{
	whole("max_in_flight", "64", maxCount, func(a *Admission) *At[int64] { return &a.MaxInFlight }),
	whole("max_waiting", "1000", maxCount, func(a *Admission) *At[int64] { return &a.MaxWaiting }),
	duration("max_wait", "10m", func(a *Admission) *At[time.Duration] { return &a.MaxWait }),
	size("body_memory", func(a *Admission) *At[daemon.Bytes] { return &a.BodyMemory }),
	size("max_body", func(a *Admission) *At[daemon.Bytes] { return &a.MaxBody }),
	duration("comment_every", "15s", func(a *Admission) *At[time.Duration] { return &a.CommentEvery }),
}

var timeoutKeys = object[Timeouts]{
	duration("first_byte", "10m", func(t *Timeouts) *At[time.Duration] { return &t.FirstByte }),
	duration("stream_idle", "5m", func(t *Timeouts) *At[time.Duration] { return &t.StreamIdle }),
	duration("drain_delay", "10s", func(t *Timeouts) *At[time.Duration] { return &t.DrainDelay }),
	duration("drain", "30s", func(t *Timeouts) *At[time.Duration] { return &t.Drain }),
}

var limitKeys = object[Limits]{
	whole("requests_per_minute", "600", maxLimit, func(l *Limits) *At[int64] { return &l.RequestsPerMinute }),
	whole("tokens_per_minute", "100000", maxLimit, func(l *Limits) *At[int64] { return &l.TokensPerMinute }),
	whole("tokens_per_day", "5000000", maxLimit, func(l *Limits) *At[int64] { return &l.TokensPerDay }),
	whole("concurrency", "20", maxCount, func(l *Limits) *At[int64] { return &l.Concurrency }),
}

var sharedKeys = object[SharedLimits]{
	must("say where it is, as redis://host:6379/0", text("redis", func(s *SharedLimits) *At[string] { return &s.Redis })),
	text("password_file", func(s *SharedLimits) *At[string] { return &s.PasswordFile }),
	duration("timeout", "50ms", func(s *SharedLimits) *At[time.Duration] { return &s.Timeout }),
	must("say what happens while Redis is away: open lets requests pass uncounted, closed refuses them", choice("fail", func(s *SharedLimits) *At[string] { return &s.Fail }, "open", "closed")),
}

var keyKeys = object[Key]{
	must("it is what logs and metrics call the caller", text("name", func(k *Key) *At[string] { return &k.Name })),
	must("make one with vllm-gateway hash-key", hashes("hash", func(k *Key) *At[[]At[secret.Hash]] { return &k.Hashes })),
	texts("models", func(k *Key) *At[[]At[string]] { return &k.Models }),
	choice("priority", func(k *Key) *At[string] { return &k.Priority }, "high", "normal", "low"),
	section("limits", limitKeys, func(k *Key) *At[Limits] { return &k.Limits }),
}

const (
	maxCount = 1e9
	// maxLimit is what a double, in which Redis's scripts count, holds to the last
	// digit, and to spare.
	maxLimit = 1e15
)

// Keys are all keys that a file may have, in order, as paths: of a list "backends[]",
// of a table with free names "models.*".
func Keys() []string { return allKeys() }

var allKeys = sync.OnceValue(func() []string { return fileKeys.paths("") })
