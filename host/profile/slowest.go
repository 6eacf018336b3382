package profile

import (
	"cmp"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// maxSlowest is the number of chunks that a profile names.
const maxSlowest = 50

// Slow is an execution that took long.
type Slow struct {
	ID       abi.ID        `json:"id"`
	Duration time.Duration `json:"duration_ns"`
	Fuel     uint64        `json:"fuel,omitempty"`
	// FuelAtLeast tells that Fuel is a lower bound; see [abi.Failure].
	FuelAtLeast bool      `json:"fuel_at_least,omitempty"`
	Size        int       `json:"size,omitempty"` // of the output, in bytes
	Worker      int       `json:"worker"`
	Class       abi.Class `json:"class,omitempty"` // of the failure, if there is no output
}

// slowest keeps the slowest executions. It is a heap, the fastest of them first.
type slowest struct{ all []Slow }

// slower orders by duration, and then by id, so that the order does not depend on
// which came first.
func slower(a, b *Slow) int {
	if c := cmp.Compare(a.Duration, b.Duration); c != 0 {
		return c
	}
	return b.ID.Compare(a.ID)
}

// wants reports whether an execution of a duration may be one of the slowest.
func (s *slowest) wants(d time.Duration) bool {
	return len(s.all) < maxSlowest || d >= s.all[0].Duration
}

func (s *slowest) add(one Slow) {
	if len(s.all) < maxSlowest {
		s.all = append(s.all, one)
		s.up(len(s.all) - 1)
		return
	}
	if slower(&one, &s.all[0]) > 0 {
		s.all[0] = one
		s.down(0)
	}
}

func (s *slowest) up(i int) {
	for parent := (i - 1) / 2; i > 0 && slower(&s.all[i], &s.all[parent]) < 0; parent = (i - 1) / 2 {
		s.all[i], s.all[parent] = s.all[parent], s.all[i]
		i = parent
	}
}

func (s *slowest) down(i int) {
	for {
		least := i
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(s.all) && slower(&s.all[child], &s.all[least]) < 0 {
				least = child
			}
		}
		if least == i {
			return
		}
		s.all[i], s.all[least] = s.all[least], s.all[i]
		i = least
	}
}

// sorted returns the executions, the slowest first.
func (s *slowest) sorted() []Slow {
	all := slices.Clone(s.all)
	slices.SortFunc(all, func(a, b Slow) int { return slower(&b, &a) })
	return all
}
