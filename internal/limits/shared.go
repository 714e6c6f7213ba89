package limits

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Shared counts in a Redis, 6.2 or newer, or a Valkey, for all that ask the same one:
// by its clock, so that theirs need not agree. What is counted there outlives them.
//
// While Redis is away nobody waits for it: who asks gets ErrUnavailable at once, and
// something in the background looks for it once a second. It is away when it cannot be
// reached or refuses, and when some answers in a row are late.
type Shared struct {
	grid
	options *redis.Options
	timeout time.Duration
	log     *slog.Logger

	client atomic.Pointer[redis.Client]
	away   atomic.Pointer[error] // nil while Redis is there; or what Take says
	late   atomic.Int32          // answers in a row that came late, or not

	mu      sync.Mutex // of who begins and who closes
	closed  bool
	running sync.WaitGroup
	ctx     context.Context
	stop    context.CancelFunc
}

// grid is what tests want otherwise.
type grid struct {
	script *redis.Script
	slot   time.Duration // whole microseconds
	every  time.Duration // Redis is looked for when it is away
}

//go:embed shared.lua
var source string

var usual = grid{script: redis.NewScript(source), slot: slotTime, every: time.Second}

// settleTimeout bounds Settle: no client waits for it.
const settleTimeout = time.Second

// mostLate answers in a row make Redis away. One may be a hiccup, of the network or of
// this process, for which a second of requests is not to be refused.
const mostLate = 3

const prefix = "vllm-gateway:"

// keyOf is the key of a caller in Redis. The braces are for a cluster: what they
// enclose says which of its servers has the key.
func keyOf(caller string) string { return prefix + "{" + caller + "}" }

var errClosed = fmt.Errorf("%w: closed", ErrUnavailable)

// NewShared makes a Limiter for the Redis that o names. It does not wait for it: that
// Redis is away is no error of this, but the log has it. The error is of Validate.
func NewShared(o Options) (*Shared, error) { return newShared(o, usual) }

// What go-redis writes to stderr by itself is in our errors as well.
var quiet = sync.OnceFunc(logging.Disable)

func newShared(o Options, g grid) (*Shared, error) {
	options, err := o.redis()
	if err != nil {
		return nil, err
	}
	quiet()
	s := &Shared{
		grid:    g,
		options: options,
		timeout: cmp.Or(o.Timeout, defaultTimeout),
		log:     cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.client.Store(redis.NewClient(options))
	s.running.Go(func() { // who has the first request should not be the first to know
		client := s.client.Load()
		if err := s.probe(client); err != nil {
			s.lost(client, err)
		}
	})
	return s, nil
}

var _ Limiter = (*Shared)(nil)

// Take waits for Options.Timeout at most, and for ctx. If it ends before Redis has
// answered, the request may stay counted; its tokens are given back, if the answer
// comes yet.
func (s *Shared) Take(ctx context.Context, caller string, l Limits, tokens int64) (Grant, error) {
	if ctx.Err() != nil {
		return Grant{}, context.Cause(ctx)
	}
	l, tokens = l.clamped(), clamped(tokens)
	if l == (Limits{}) {
		return Grant{}, nil
	}
	key := keyOf(caller)
	late := func(reply []int64) {
		if g, err := grant(reply, l, tokens); err == nil && !g.settled(0) {
			s.run(s.client.Load(), settleTimeout, key, s.settling(g, 0))
		}
	}
	reply, err := s.ask(ctx, s.timeout, late, key, s.taking(l, tokens))
	if err != nil {
		return Grant{}, err
	}
	return grant(reply, l, tokens)
}

// Settle waits for a second at most.
func (s *Shared) Settle(ctx context.Context, caller string, g Grant, used int64) error {
	if used = clamped(used); g.settled(used) {
		return nil
	}
	_, err := s.ask(context.WithoutCancel(ctx), settleTimeout, nil, keyOf(caller), s.settling(g, used))
	return err
}

// Close ends what is asked, and waits for it. Who asks later gets ErrUnavailable.
func (s *Shared) Close() error {
	s.mu.Lock()
	s.closed = true
	s.away.Store(&errClosed) // whatever was said of Redis before
	s.mu.Unlock()
	s.stop()
	err := s.client.Load().Close() // what waits for an answer no longer does
	s.running.Wait()
	if errors.Is(err, redis.ErrClosed) { // a second Close
		return nil
	}
	return err
}

func (s *Shared) taking(l Limits, tokens int64) []any {
	return []any{"take", s.slot.Microseconds(), l.Requests, l.Tokens, l.DayTokens, tokens}
}

func (s *Shared) settling(g Grant, used int64) []any {
	flag := func(limit int64) int64 { return min(limit, 1) }
	return []any{"settle", s.slot.Microseconds(), flag(g.limits.Tokens), flag(g.limits.DayTokens), g.reserved, used, g.slot, g.day}
}

// kinds are Kinds by the number that the script gives them.
var kinds = [...]Kind{"", Requests, Tokens, DayTokens}

// grant reads the script's answer to "take".
func grant(reply []int64, l Limits, tokens int64) (Grant, error) {
	if len(reply) != 10 || reply[0] < 0 || int(reply[0]) >= len(kinds) {
		return Grant{}, fmt.Errorf("%w: Redis gave %v for an answer", ErrUnavailable, reply)
	}
	level := func(limit, left, reset int64) Level {
		if limit == 0 {
			return Level{}
		}
		return Level{Limit: limit, Left: left, Reset: time.Duration(reset) * time.Microsecond}
	}
	g := Grant{
		Over:      kinds[reply[0]],
		Retry:     time.Duration(reply[1]) * time.Microsecond,
		Requests:  level(l.Requests, reply[4], reply[5]),
		Tokens:    level(l.Tokens, reply[6], reply[7]),
		DayTokens: level(l.DayTokens, reply[8], reply[9]),
	}
	if g.Over == "" {
		g.limits, g.reserved, g.slot, g.day = l, tokens, reply[2], reply[3]
	}
	return g, nil
}

// ask runs the script, and ends when that does, or ctx, or timeout. An answer that
// comes after it goes to late.
//
// The script runs in a goroutine of its own: go-redis looks at the deadline of a
// context, and not whether it has ended.
func (s *Shared) ask(ctx context.Context, timeout time.Duration, late func(reply []int64), key string, args []any) ([]int64, error) {
	if away := s.away.Load(); away != nil {
		return nil, *away
	}
	type answer struct {
		reply []int64
		err   error
	}
	var noted atomic.Bool // once for each that asks
	note := func(client *redis.Client, cause error) error {
		if noted.Swap(true) || isLate(cause) && s.late.Add(1) < mostLate {
			return fmt.Errorf("%w: %w", ErrUnavailable, cause)
		}
		return s.lost(client, cause)
	}
	answered, left := make(chan answer), make(chan struct{})
	defer close(left)
	client := s.client.Load()
	if !s.begin(func() {
		reply, err := s.run(client, timeout, key, args)
		if err == nil {
			s.late.Store(0)
		} else {
			err = note(client, err)
		}
		select {
		case answered <- answer{reply, err}:
		case <-left:
			if err == nil && late != nil {
				late(reply)
			}
		}
	}) {
		return nil, errClosed
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, note(client, context.DeadlineExceeded)
	}
}

// isLate reports whether time was all that was wrong.
func isLate(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout) || errors.As(err, &network) && network.Timeout()
}

// begin runs f in the background, unless all has ended.
func (s *Shared) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Go(f)
	}
	return !s.closed
}

func (s *Shared) run(client *redis.Client, timeout time.Duration, key string, args []any) ([]int64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.script.Run(ctx, client, []string{key}, args...).Int64Slice()
}

// lost takes note of why Redis could not be asked, and gives what to say to who did.
// What a client knows that has been replaced is old.
func (s *Shared) lost(client *redis.Client, cause error) error {
	err := fmt.Errorf("%w: %w", ErrUnavailable, cause)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.client.Load() == client && s.away.CompareAndSwap(nil, &err) {
		s.log.Warn("Redis is away: limits cannot be shared", "cause", cause)
		s.running.Go(s.find)
	}
	return err
}

// find looks for Redis until it is back, each time with new connections: the old ones
// may be to a Redis that is no more.
func (s *Shared) find() {
	since := time.Now()
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		client := redis.NewClient(s.options)
		goOn := context.AfterFunc(s.ctx, func() { client.Close() })
		err := s.probe(client)
		goOn()
		if err != nil {
			client.Close()
			continue
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			client.Close()
			return
		}
		old := s.client.Swap(client)
		s.late.Store(0)
		s.away.Store(nil)
		s.mu.Unlock()
		old.Close()
		s.log.Info("Redis is back: limits are shared", "away", time.Since(since).Round(time.Millisecond))
		return
	}
}

// probe asks what requests ask, so that whatever would fail them fails it: a password,
// a right to write, a replica. To connect and to bring the script it has the time of a
// Settle, and then to answer that of a Take.
func (s *Shared) probe(client *redis.Client) error {
	args := s.taking(Limits{Requests: most}, 0)
	if _, err := s.run(client, settleTimeout, prefix+"probe", args); err != nil {
		return err
	}
	_, err := s.run(client, s.timeout, prefix+"probe", args)
	return err
}
