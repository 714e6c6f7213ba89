package gateway

// budget keeps second attempts from doubling the load on backends that all fail.
// What counts is second attempts that have failed as well: as long as the other
// backend answers, as many requests may be mended as there are, all those of a
// server that has just died included. It is the retry throttle of gRPC (A6), but
// for what it counts. The zero value is full.
type budget struct{ spent int }

const (
	// budgetSize is as much as may be spent.
	budgetSize = 200
	// failedCost is what a second attempt costs that has failed: twenty may in a
	// row. Each request that a backend answers gives back 1.
	failedCost = 10
)

func (b *budget) left() bool { return b.spent < budgetSize }

func (b *budget) fail() { b.spent = min(b.spent+failedCost, budgetSize) }

func (b *budget) succeed() { b.spent = max(b.spent-1, 0) }
