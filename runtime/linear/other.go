//go:build !linux

package linear

func systemStrategies() []Strategy { return nil }

func systemPreferred() Strategy { return Auto }

func newSpace(limit uint64, _ fault) (space, error) { return newHeap(limit), nil }

// share returns false: the content is on the heap of Go.
func (i *Image) share([]byte, fault) bool { return false }

func (i *Image) unshare() {}
