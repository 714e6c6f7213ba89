package gateway

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// choice is what a policy chooses from.
type choice struct {
	free []*backend // equally good, and none of them full; at least one
	// inFlight and weight are the sums over these and over those that are as good
	// and full.
	inFlight, weight int
	group            uint64  // see want
	maxLoad          float64 // see Config
}

// policy chooses one of the free backends. The pool is locked meanwhile.
type policy func(*choice) *backend

// Routing policies, by the name that --routing takes.
const (
	LeastInFlight = "least-in-flight"
	RoundRobin    = "round-robin"
	PowerOfTwo    = "power-of-two"
	Session       = "session"
	Prefix        = "prefix"
)

var policies = map[string]policy{
	LeastInFlight: leastInFlight,
	RoundRobin:    roundRobin,
	PowerOfTwo:    powerOfTwo,
	Session:       byHash, // the two differ in what the group is made of
	Prefix:        byHash,
}

// Policies gives the names of all routing policies, sorted.
func Policies() []string { return slices.Sorted(maps.Keys(policies)) }

// leastInFlight goes by our own count: what a server says of its queue lags by
// seconds. Equals share, the longest unused first.
func leastInFlight(c *choice) *backend {
	if !sameWeight(c.free) {
		return byWeight(c.free, func(b *backend) float64 { return float64(b.weight) / float64(b.inFlight+1) })
	}
	return slices.MinFunc(c.free, func(a, b *backend) int {
		return cmp.Or(cmp.Compare(a.inFlight, b.inFlight), cmp.Compare(a.turn, b.turn))
	})
}

func roundRobin(c *choice) *backend {
	return byWeight(c.free, func(b *backend) float64 { return float64(b.weight) })
}

// powerOfTwo takes the better of two at random. Where many gateways share the
// backends, it keeps them from all taking the one that looks least loaded.
func powerOfTwo(c *choice) *backend {
	a := atRandom(c.free)
	if len(c.free) == 1 {
		return a
	}
	b := atRandom(c.free)
	for b == a {
		b = c.free[rand.IntN(len(c.free))]
	}
	if float64(b.inFlight)/float64(b.weight) < float64(a.inFlight)/float64(a.weight) {
		return b
	}
	return a
}

// atRandom draws one with a chance that goes by weight.
func atRandom(from []*backend) *backend {
	total := 0
	for _, b := range from {
		total += b.weight
	}
	at := rand.IntN(total)
	for _, b := range from {
		if at -= b.weight; at < 0 {
			return b
		}
	}
	panic("unreachable: weights are positive")
}

// Bounds of a group under byHash; docs/routing.md has what other values did.
const (
	// minLoad is what a group may bring a backend whatever the mean is. With few
	// requests about, one more is a multiple of it, and no load; and a bound that
	// is too tight while caches are cold keeps them cold.
	minLoad = 8
	// defaultMaxLoad is Config.MaxLoad where that says nothing.
	defaultMaxLoad = 2
	// commonShare: see telling.
	commonShare = 4
)

// telling gives the first of the groups that tells prompts apart; 0: none does. A group
// tells nothing where a large share of what is in flight has it: they all send one
// system prompt. Fewer than commonShare groups can be so at a time, so every backend
// soon has cached what they stand for, and what comes next in the prompt decides.
func (p *pool) telling(groups [2]uint64, inFlight int) uint64 {
	for _, k := range groups {
		if n := p.begun[k]; k != 0 && (n < minLoad || commonShare*n <= inFlight) {
			return k
		}
	}
	return 0
}

// count keeps how many of the leases have the groups.
func (p *pool) count(groups [2]uint64, by int) {
	for _, k := range groups {
		if k == 0 {
			continue
		}
		if p.begun[k] += by; p.begun[k] == 0 {
			delete(p.begun, k)
		}
	}
}

// byHash takes the backend that the group belongs to, so that prompts which begin
// alike meet the same prefix cache; or, while that one has more than its share of
// the load, the next that the group belongs to. Of every group all gateways make the
// same order of backends (rendezvous hashing: each group has an order of its own, so
// what one backend cannot take spreads over all others, and a backend that comes
// or goes moves its own groups only).
func byHash(c *choice) *backend {
	if c.group == 0 {
		return leastInFlight(c)
	}
	mean := float64(c.inFlight+1) / float64(c.weight) // for each unit of weight
	var best *backend
	var top float64
	for _, b := range c.free {
		// Of many backends maxLoad times its share; of two less, for twice the half is
		// all there is.
		share := float64(b.weight) / float64(c.weight)
		most := (1 + (c.maxLoad-1)*(1-share)) * mean * float64(b.weight)
		if float64(b.inFlight+1) > max(most, minLoad) {
			continue
		}
		if s := score(c.group, b); best == nil || s > top {
			best, top = b, s
		}
	}
	if best == nil { // the others are full
		return leastInFlight(c)
	}
	return best
}

// score is between 0 and 1, and the higher weight's is the highest as often as
// its share says.
func score(group uint64, b *backend) float64 {
	u := (float64(mix(group^b.hash)>>11) + 0.5) / (1 << 53)
	if b.weight == 1 {
		return u
	}
	return math.Pow(u, 1/float64(b.weight))
}

// byWeight is nginx's smooth round robin: each turn everybody gains its weight,
// and the richest pays for all.
func byWeight(from []*backend, weight func(*backend) float64) *backend {
	var best *backend
	total := 0.0
	for _, b := range from {
		w := weight(b)
		total += w
		b.credit += w
		if best == nil || b.credit > best.credit {
			best = b
		}
	}
	best.credit -= total
	return best
}

func sameWeight(backends []*backend) bool {
	for _, b := range backends {
		if b.weight != backends[0].weight {
			return false
		}
	}
	return true
}

// hash is FNV-1a: every gateway must come to the same.
func hash(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

const hashSeed uint64 = 14695981039346656037

// mix spreads what differs in a few bits over all (the end of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
