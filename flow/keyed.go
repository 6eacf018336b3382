package flow

import "time"

// keyed holds the ready items of a lane whose limit has a key: a queue for each value
// of the key, so that items that wait for one value do not hold up the others. It
// belongs to the lane.
type keyed struct {
	order []*keyQueue // not empty, in the order in which they became so
	byKey map[string]*keyQueue
}

// keyQueue has the ready items of one value of a key.
type keyQueue struct {
	key   string
	items []int     // numbers
	why   cause     // its limit was asked, and allowed no step
	until time.Time // then; zero = until a step of the key ends
}

// push adds an item: as the last of its key, or as the first.
func (k *keyed) push(key string, number int, first bool) {
	q := k.byKey[key]
	if q == nil {
		if k.byKey == nil {
			k.byKey = map[string]*keyQueue{}
		}
		q = &keyQueue{key: key}
		k.byKey[key] = q
		k.order = append(k.order, q)
	}
	if first {
		q.items = append([]int{number}, q.items...)
		return
	}
	q.items = append(q.items, number)
}

// take takes the first item of the i-th queue.
func (k *keyed) take(i int) (number int) {
	q := k.order[i]
	number, q.items = q.items[0], q.items[1:]
	if len(q.items) == 0 {
		delete(k.byKey, q.key)
		k.order = append(k.order[:i], k.order[i+1:]...)
	}
	return number
}

// wake has the limit of a key asked again.
func (k *keyed) wake(key string) {
	if q := k.byKey[key]; q != nil {
		q.why = none
	}
}
