package gateway

// budget keeps second attempts from doubling the load on backends that all fail.
// What counts is second attempts that have failed as well: as long as the other
// backend answers, as many requests may be mended as there are, all those of a
// server that has just died included. It is the retry throttle of gRPC (A6), but
// for what it counts. The zero value is full.
type budget struct{ spent float64 }

const (
	// budgetSize is how many second attempts may fail in a row.
	budgetSize = 20
	// budgetGain is what each request that a backend answers gives back.
	budgetGain = 0.1
)

func (b *budget) left() bool { return b.spent < budgetSize }

func (b *budget) fail() { b.spent = min(b.spent+1, budgetSize) }

func (b *budget) succeed() { b.spent = max(b.spent-budgetGain, 0) }
