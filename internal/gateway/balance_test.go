package gateway

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// backendsWith makes backends of weights, with nothing in flight.
func backendsWith(weights ...int) []*backend {
	var list []*backend
	for i, w := range weights {
		name := fmt.Sprintf("10.0.0.%d:8000", i)
		list = append(list, &backend{name: name, weight: w, hash: hash(hashSeed, []byte(name))})
	}
	return list
}

func choiceOf(backends []*backend, group uint64) *choice {
	c := &choice{free: backends, group: group, maxLoad: defaultMaxLoad}
	for _, b := range backends {
		c.inFlight += b.inFlight
		c.weight += b.weight
	}
	return c
}

// groupOf is a group as a prompt gives it.
func groupOf(i int) uint64 { return hash(hashSeed, fmt.Append(nil, "model\x00prompt ", i)) | 1 }

// Every policy: over many requests each backend gets its share by weight, whatever
// the weights are.
func TestSharesByWeight(t *testing.T) {
	for _, name := range Policies() {
		for _, weights := range [][]int{{1, 1, 1, 1}, {1, 3}, {5, 1, 1}, {100, 1}, {1}} {
			t.Run(fmt.Sprint(name, weights), func(t *testing.T) {
				const n = 20000
				backends, total := backendsWith(weights...), 0
				for _, w := range weights {
					total += w
				}
				got := map[*backend]int{}
				for i := range n {
					b := policies[name](choiceOf(backends, groupOf(i)))
					b.turn = i
					got[b]++
				}
				for _, b := range backends {
					want := float64(n) * float64(b.weight) / float64(total)
					// Where chance decides: five standard deviations. Else: one turn.
					off := 5 * math.Sqrt(want*(1-want/n))
					if name == LeastInFlight || name == RoundRobin {
						off = 1
					}
					if math.Abs(float64(got[b])-want) > off {
						t.Errorf("weight %d of %d: %d of %d requests; want %.0f ± %.0f", b.weight, total, got[b], n, want, off)
					}
				}
			})
		}
	}
}

// Every policy takes what is free, the only one too.
func TestPoliciesTakeWhatIsFree(t *testing.T) {
	for _, name := range Policies() {
		backends := backendsWith(1, 1, 1, 1)
		for i := range 4 {
			backends[i].inFlight = 1000
			c := choiceOf(backends, groupOf(i))
			c.free = backends[i : i+1]
			if b := policies[name](c); b != backends[i] {
				t.Errorf("%s took %s; %s alone was free", name, b.name, backends[i].name)
			}
		}
	}
}

// Of two, the one with less in flight for its weight.
func TestPowerOfTwo(t *testing.T) {
	backends := backendsWith(1, 1)
	backends[0].inFlight = 1
	for range 100 {
		if powerOfTwo(choiceOf(backends, 0)) != backends[1] {
			t.Fatal("took the one with more in flight")
		}
	}
	backends[0].weight, backends[0].inFlight, backends[1].inFlight = 3, 2, 1
	for range 100 {
		if powerOfTwo(choiceOf(backends, 0)) != backends[0] {
			t.Fatal("took the one with more in flight for its weight")
		}
	}
}

// A group has one backend; when another comes or goes, only the groups of that one
// move.
func TestKeysStay(t *testing.T) {
	const n = 10000
	backends := backendsWith(1, 1, 1, 1, 1, 1, 1, 1)
	first := map[int]*backend{}
	for i := range n {
		first[i] = byHash(choiceOf(backends, groupOf(i)))
		if again := byHash(choiceOf(backends, groupOf(i))); again != first[i] {
			t.Fatalf("group %d went to %s and then to %s", i, first[i].name, again.name)
		}
	}
	gone := backends[3]
	fewer := append(append([]*backend{}, backends[:3]...), backends[4:]...)
	to := map[*backend]int{}
	for i := range n {
		b := byHash(choiceOf(fewer, groupOf(i)))
		if first[i] != gone && b != first[i] {
			t.Fatalf("group %d moved from %s to %s, and neither has gone", i, first[i].name, b.name)
		}
		if first[i] == gone {
			to[b]++
		}
	}
	if len(to) != 7 { // what one had spreads over all others
		t.Errorf("the groups of the one that has gone went to %d of 7", len(to))
	}
}

// One hot group: its backend gets up to the bound, the others what is over.
func TestLoadOfAKeyIsBounded(t *testing.T) {
	backends := backendsWith(1, 1, 1, 1, 1, 1, 1, 1)
	for range 800 {
		byHash(choiceOf(backends, groupOf(1))).inFlight++
	}
	for _, b := range backends {
		if b.inFlight > defaultMaxLoad*100 {
			t.Errorf("of 800, %s has %d", b.name, b.inFlight)
		}
	}
	few := backendsWith(1, 1, 1, 1, 1, 1, 1, 1)
	for range minLoad {
		byHash(choiceOf(few, groupOf(1))).inFlight++
	}
	for _, b := range few {
		if b.inFlight != 0 && b.inFlight != minLoad {
			t.Errorf("%d requests of one group do not stay together: %s has %d", int(minLoad), b.name, b.inFlight)
		}
	}
}

// Of few backends none may have all: with two the bound is three quarters.
func TestBoundOfFewBackends(t *testing.T) {
	for n, want := range map[int]int{2: 61, 3: 46, 4: 36} {
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1
		}
		backends := backendsWith(weights...)
		for range 80 {
			byHash(choiceOf(backends, groupOf(1))).inFlight++
		}
		most := 0
		for _, b := range backends {
			most = max(most, b.inFlight)
		}
		if most > want || most < want-4 {
			t.Errorf("of %d backends the busiest has %d of 80; want about %d", n, most, want)
		}
	}
}

// What a request belongs to: its session, else what its prompt begins with.
func TestWhatBelongsTogether(t *testing.T) {
	prompt := func(system, user string) string {
		return `{"model":"tiny","messages":[{"role":"system","content":"` + system + `"},{"role":"user","content":"` + user + `"}]}`
	}
	long := strings.Repeat("You are a helpful assistant. ", 100)
	for name, tt := range map[string]struct {
		policy string
		header func(i int) []string
		body   func(i int) string
		one    bool // all go to one backend
	}{
		"prefix, the same beginning":   {Prefix, nil, func(i int) string { return prompt(long, fmt.Sprint(i)) }, true},
		"prefix, other beginnings":     {Prefix, nil, func(i int) string { return prompt(fmt.Sprint(i)+long, "x") }, false},
		"prefix, the same session":     {Prefix, func(int) []string { return []string{"X-Session-Id", "s"} }, func(i int) string { return prompt(fmt.Sprint(i), "x") }, true},
		"prefix, no prompt":            {Prefix, nil, func(int) string { return `{"model":"tiny"}` }, false},
		"session, the same":            {Session, func(int) []string { return []string{"X-Session-Id", "s"} }, func(i int) string { return prompt(fmt.Sprint(i), "x") }, true},
		"session, others":              {Session, func(i int) []string { return []string{"X-Session-Id", fmt.Sprint(i)} }, func(int) string { return prompt(long, "x") }, false},
		"session, none":                {Session, nil, func(int) string { return prompt(long, "x") }, false},
		"least in flight, one session": {LeastInFlight, func(int) []string { return []string{"X-Session-Id", "s"} }, func(int) string { return prompt(long, "x") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, func(c *Config) { c.Routing = tt.policy }, func(r *rig) {
				for i := range 40 {
					var header []string
					if tt.header != nil {
						header = tt.header(i)
					}
					r.mustPost("/v1/chat/completions", tt.body(i), header...)
				}
				used := 0
				for _, b := range r.backends {
					if len(b.requests()) > 0 {
						used++
					}
				}
				if (used == 1) != tt.one {
					t.Errorf("%d of 4 backends were used", used)
				}
			}, named("a"), named("b"), named("c"), named("d"))
		})
	}
}

// A beginning that most of what is in flight has tells nothing: what comes next in
// the prompt decides, and where all have that as well, the load.
func TestWhatEverybodySendsTellsNothing(t *testing.T) {
	p := poolOf(Prefix, 8, 0)
	w := &want{begins: [2]uint64{groupOf(1), groupOf(2)}}
	if got := p.telling(w.begins, 0); got != groupOf(1) {
		t.Error("alone, the beginning does not decide")
	}
	p.count([2]uint64{groupOf(1), groupOf(3)}, 20)
	if got := p.telling(w.begins, 79); got != groupOf(2) {
		t.Error("20 of 79 begin alike, and still the beginning decides")
	}
	if got := p.telling(w.begins, 80); got != groupOf(1) {
		t.Error("20 of 80 begin alike, and the beginning does not decide")
	}
	p.count(w.begins, 20)
	if got := p.telling(w.begins, 40); got != 0 {
		t.Error("all are alike, and still a group decides")
	}
	p.count(w.begins, -20)
	p.count([2]uint64{groupOf(1), groupOf(3)}, -20)
	if len(p.begun) != 0 {
		t.Errorf("counts are left behind: %v", p.begun)
	}
}

// The same prompt for another model belongs elsewhere, and two gateways come to
// the same without talking.
func TestGatewaysAgree(t *testing.T) {
	homes := func(model string) (names []string) {
		inBubbleWith(t, func(c *Config) { c.Routing = Prefix }, func(r *rig) {
			for _, b := range r.backends {
				b.set(func(b *fakeVLLM) { b.models = []string{"m1", "m2"} })
			}
			time.Sleep(6 * time.Second)
			for i := range 30 {
				_, by := r.mustPost("/v1/completions", fmt.Sprintf(`{"model":"%s","prompt":"%d"}`, model, i))
				names = append(names, by)
			}
		}, named("a"), named("b"), named("c"), named("d"))
		return names
	}
	one, two, other := homes("m1"), homes("m1"), homes("m2")
	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Errorf("one gateway sends to\n%v, another to\n%v", one, two)
	}
	if fmt.Sprint(one) == fmt.Sprint(other) {
		t.Error("the model makes no difference")
	}
}
