//go:build !linux

package linear

func systemStrategies() []Strategy { return nil }

func newSpace(limit uint64, _ Strategy) (space, tracker, error) { return newHeap(limit), nil, nil }

// share returns false: the content is on the heap of Go.
func (i *Image) share([]byte) bool { return false }

func (i *Image) unshare() {}
