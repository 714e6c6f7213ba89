package vllmsim

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// readings are what a scrape of the cards gives, by name without its prefix and
// number of the card: "duty_cycle 0".
func (b *bubble) readings() map[string]float64 {
	b.t.Helper()
	got := map[string]float64{}
	for line := range strings.Lines(b.scrapeGPUs()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		name, labels, _ := strings.Cut(series, "{")
		n := labels[strings.Index(labels, `gpu="`)+5:][:1]
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		got[strings.TrimPrefix(name, "nvidia_gpu_")+" "+n] = v
	}
	return got
}

func (b *bubble) scrapeGPUs() string {
	w := httptest.NewRecorder()
	b.sim.GPUs().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func (b *bubble) wantReadings(when string, want map[string]float64) {
	b.t.Helper()
	got := b.readings()
	for name, v := range want {
		if got[name] != v {
			b.t.Errorf("%s: %s = %v; want %v", when, name, got[name], v)
		}
	}
}

func TestIdleCards(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		const want = `# HELP nvidia_gpu_duty_cycle Percent of the last second in which a kernel ran, 0 to 100. Simulated.
# TYPE nvidia_gpu_duty_cycle gauge
nvidia_gpu_duty_cycle{gpu="0",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-0"} 0
nvidia_gpu_duty_cycle{gpu="1",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-1"} 0
# HELP nvidia_gpu_memory_total_bytes Memory of the card. Simulated.
# TYPE nvidia_gpu_memory_total_bytes gauge
nvidia_gpu_memory_total_bytes{gpu="0",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-0"} 2.5769803776e+10
nvidia_gpu_memory_total_bytes{gpu="1",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-1"} 2.5769803776e+10
# HELP nvidia_gpu_memory_used_bytes Memory in use. Simulated.
# TYPE nvidia_gpu_memory_used_bytes gauge
nvidia_gpu_memory_used_bytes{gpu="0",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-0"} 2.16224e+10
nvidia_gpu_memory_used_bytes{gpu="1",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-1"} 2.1353964544e+10
# HELP nvidia_gpu_power_usage_milliwatts Power draw in milliwatts. Simulated.
# TYPE nvidia_gpu_power_usage_milliwatts gauge
nvidia_gpu_power_usage_milliwatts{gpu="0",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-0"} 25000
nvidia_gpu_power_usage_milliwatts{gpu="1",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-1"} 25000
# HELP nvidia_gpu_temperature Temperature in degrees Celsius. Simulated.
# TYPE nvidia_gpu_temperature gauge
nvidia_gpu_temperature{gpu="0",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-0"} 38
nvidia_gpu_temperature{gpu="1",name="simulated NVIDIA GeForce RTX 3090",uuid="GPU-simulated-1"} 40
`
		if got := b.scrapeGPUs(); got != want {
			t.Errorf("scrape of idle cards:\n%s\nwant:\n%s", got, want)
		}
		time.Sleep(24 * time.Hour)
		if got := b.scrapeGPUs(); got != want {
			t.Errorf("after a day without work:\n%s\nwant:\n%s", got, want)
		}
		if _, text := b.call("GET", "/metrics", ""); strings.Contains(text, "nvidia") {
			t.Error("/metrics of the simulated vLLM shows cards; vLLM's does not")
		}
	})
}

// milliwatts is a card's power at a duty cycle of 0 to 1.
func milliwatts(duty float64) float64 { return math.Round(25_000 + 325_000*duty) }

// percent is a share as the driver shows it.
func percent(share float64) float64 { return math.Round(100 * share) }

// One sequence, then none: the averages are those of the formula, at any moment
// within a step as well.
func TestCardsFollowOneStream(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		var one sync.WaitGroup
		one.Go(func() { b.stream("/v1/completions", ask(1, 10, 9_999/5)) })
		// The first step computes 10 prompt tokens: 20 ms, of which the CPU takes
		// 6.3 ms; each further one takes 10 ms, with the same 6.3 ms.
		const prefill, decode = 1 - .63/2, 1 - .63
		after := func(prefilled, decoded, idle, constant float64) float64 {
			v := prefill * (1 - math.Exp(-prefilled/constant))
			v = decode + (v-decode)*math.Exp(-decoded/constant)
			return v * math.Exp(-idle/constant)
		}
		for _, test := range []struct {
			at                       time.Duration
			prefilled, decoded, idle float64
		}{
			{13 * time.Millisecond, .013, 0, 0}, // inside the first step
			{20 * time.Millisecond, .020, 0, 0},
			{1 * time.Second, .020, .980, 0},
			{1013 * time.Millisecond, .020, .993, 0}, // inside a step
			{15 * time.Second, .020, 14.980, 0},
			{20 * time.Second, .020, 19.98, 0},     // just ended
			{21 * time.Second, .020, 19.98, 1},     // a third of the load is left
			{80 * time.Second, .020, 19.98, 60},    // and of the warmth
			{800 * time.Second, .020, 19.98, 780},  // nothing
			{9000 * time.Second, .020, 19.98, 8e3}, // and so it stays
		} {
			time.Sleep(test.at - b.since())
			duty := after(test.prefilled, test.decoded, test.idle, 1)
			heat := after(test.prefilled, test.decoded, test.idle, 60)
			b.wantReadings(test.at.String(), map[string]float64{
				"duty_cycle 0": percent(duty), "duty_cycle 1": percent(.97 * duty),
				"power_usage_milliwatts 0": milliwatts(duty), "power_usage_milliwatts 1": milliwatts(.97 * duty),
				"temperature 0": math.Round(38 + 42*heat), "temperature 1": math.Round(40 + 43*.97*heat),
				"memory_used_bytes 0": 2.16224e10,
			})
		}
	})
}

// A full batch leaves the card little time; far more sequences none but the
// CPU's last part.
func TestBatchSizeFillsTheStep(t *testing.T) {
	for _, test := range []struct {
		sequences int
		step      time.Duration
		want      float64
	}{
		{1, 6825 * time.Microsecond, .40},
		{2, 7150 * time.Microsecond, .457},
		{8, 9100 * time.Microsecond, .716},
		{16, 11700 * time.Microsecond, .926},
		{64, 27300 * time.Microsecond, .9925},
		{1, 100 * time.Millisecond, .959}, // a long prompt
		{1, 0, 0},                         // a model of steps that cost nothing
	} {
		if got := (Config{}).WithDefaults().Cost.busyShare(test.sequences, test.step); math.Abs(got-test.want) > .001 {
			t.Errorf("%d sequences in %v: kernels run %.4f of it; want %v", test.sequences, test.step, got, test.want)
		}
	}
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() { b.stream("/v1/completions", ask(i+1, 20, 1900)) })
		}
		time.Sleep(20 * time.Second)
		got := b.readings()
		within(t, "duty cycle", got["duty_cycle 0"], 92, 94)
		within(t, "power", got["power_usage_milliwatts 0"], 325_000, 330_000)
		if got["duty_cycle 1"] >= got["duty_cycle 0"] {
			t.Errorf("duty cycles %v and %v; want the second card below the first", got["duty_cycle 0"], got["duty_cycle 1"])
		}
		all.Wait()
	})
}

// However many look, and however often: all see the same, and change nothing.
func TestLookingChangesNothing(t *testing.T) {
	run := func(look bool) (last string) {
		inBubble(t, Config{}, func(t *testing.T, b *bubble) {
			var one sync.WaitGroup
			one.Go(func() { b.stream("/v1/completions", ask(1, 20, 500)) })
			if look {
				for range 3000 {
					time.Sleep(time.Millisecond)
					if one, two := b.scrapeGPUs(), b.scrapeGPUs(); one != two {
						t.Fatalf("two scrapes at %v:\n%s\n%s", b.since(), one, two)
					}
				}
			}
			time.Sleep(3500*time.Millisecond - b.since())
			last = b.scrapeGPUs()
			time.Sleep(time.Second)
		})
		return last
	}
	if a, b := run(false), run(true); a != b {
		t.Errorf("read once:\n%s\nread 6000 times before:\n%s", a, b)
	}
}

// The defaults give what the guide expects of 10, 50 and 100 users.
func TestGuidesDutyCycles(t *testing.T) {
	for _, test := range []struct {
		users     int
		low, high float64
		span      time.Duration // the fewer users, the more a mean varies
	}{{10, 30, 50, 3 * time.Minute}, {50, 70, 90, time.Minute}, {100, 85, 98, time.Minute}} {
		span := test.span
		if raceDetector {
			span /= 3
		}
		t.Run(fmt.Sprint(test.users), func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				var duty [2][]float64
				var temperature float64
				var scraper sync.WaitGroup
				scraper.Go(func() {
					time.Sleep(2500 * time.Millisecond)
					for b.since() < span {
						got := b.readings()
						duty[0] = append(duty[0], got["duty_cycle 0"])
						duty[1] = append(duty[1], got["duty_cycle 1"])
						temperature = got["temperature 0"]
						// Far below the second and a half in which users come back:
						// seldom looks would fall on their beat.
						time.Sleep(97 * time.Millisecond)
					}
				})
				b.closedLoop(test.users, span)
				scraper.Wait()
				for i := range duty {
					t.Logf("%3d users, card %d: duty cycle mean %.1f (%.0f to %.0f), temperature at the end %.0f",
						test.users, i, mean(duty[i]), quantile(duty[i], 0), quantile(duty[i], 1), temperature)
					within(t, "mean duty cycle", mean(duty[i]), test.low, test.high)
				}
			})
		})
	}
}

// A cache that would not fit fills the card, and not more.
func TestCardMemory(t *testing.T) {
	for tokens, want := range map[int]float64{2048: 3_600_000_000 + 2048*22_528, 10_000_000: 24 << 30} {
		if got := pair[0].memory(Config{KVCacheTokens: tokens}); got != want {
			t.Errorf("%d tokens of cache: %v bytes; want %v", tokens, got, want)
		}
	}
}

// The linter dislikes one of the guide's names.
func TestCardNames(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		problems, err := promlint.New(strings.NewReader(b.scrapeGPUs())).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if p.Metric != "nvidia_gpu_power_usage_milliwatts" || !strings.Contains(p.Text, "watts") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	})
}

// Every step of the engine comes by here.
func BenchmarkCardStep(b *testing.B) {
	var g gpu
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		g.step(at, at.Add(10*time.Millisecond), .9)
		at = at.Add(10 * time.Millisecond)
	}
}
