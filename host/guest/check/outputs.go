package check

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
)

// checkOutputs checks the results of the calls.
func (r *Report) checkOutputs(calls []Call, first []guest.CallResult) {
	var all, merged *guest.CallResult
	loose := false
	for i := range first {
		result := &first[i]
		switch calls[i].Name {
		case aggregateOfAll:
			all = result
		case mergeOfHalves:
			merged = result
		}
		if result.Failure != nil || loose {
			continue
		}
		if place, ok := deterministic(result.Output); !ok {
			loose = true
			r.hint(Remark{Kind: Loose, Call: calls[i].Name, Detail: place})
		}
	}
	if merged == nil || all == nil || all.Failure != nil {
		return
	}
	if merged.Failure != nil {
		r.hint(Remark{Kind: MergeFails, Failure: merged.Failure})
	} else if merged.SHA256 != all.SHA256 {
		r.hint(Remark{Kind: GroupsMatter, Difference: &Difference{mergeOfHalves, *all, *merged}})
	}
}

// deterministic reports whether an item has the shortest heads and floats, no
// indefinite lengths and sorted keys. If not, place describes the first deviation.
func deterministic(item []byte) (place string, ok bool) {
	place, _ = loosePlace(item)
	return place, place == ""
}

func loosePlace(item []byte) (place string, rest []byte) {
	h, err := abi.ReadHead(item)
	if err != nil {
		return err.Error(), nil
	}
	head, rest := item[:h.Size], item[h.Size:]
	switch {
	case h.Indefinite:
		return "something of indefinite length", nil
	case h.Major == abi.MajorSimple:
		if head[0] >= 0xf9 && shortestFloat(head) != h.Size {
			return "a float that is longer than needed", nil
		}
		return "", rest
	case len(abi.AppendHead(nil, h.Major, h.Arg)) != h.Size:
		return fmt.Sprintf("a head of %d bytes for %d", h.Size, h.Arg), nil
	}
	switch h.Major {
	case abi.MajorBytes, abi.MajorText:
		return "", rest[h.Arg:]
	case abi.MajorTag:
		return loosePlace(rest)
	case abi.MajorArray:
		for n := uint64(0); n < h.Arg && place == ""; n++ {
			place, rest = loosePlace(rest)
		}
	case abi.MajorMap:
		return loosePair(rest, h.Arg)
	}
	return place, rest
}

// loosePair is loosePlace for n pairs.
func loosePair(rest []byte, n uint64) (place string, _ []byte) {
	var last []byte
	for i := uint64(0); i < n && place == ""; i++ {
		start := rest
		if place, rest = loosePlace(rest); place != "" {
			return place, nil
		}
		key := start[:len(start)-len(rest)]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return "the keys of a map are not in bytewise order", nil
		}
		last = key
		place, rest = loosePlace(rest)
	}
	return place, rest
}

// shortest writes a float in its shortest form: infinities and NaNs in three
// bytes.
var shortest = sync.OnceValue(func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
})

// shortestFloat returns the size of the shortest encoding of an encoded float, in
// bytes.
func shortestFloat(item []byte) int {
	var f float64
	if err := cbor.Unmarshal(item, &f); err != nil {
		panic(err) // It is a float of 16, 32 or 64 bits.
	}
	b, err := shortest().Marshal(f)
	if err != nil {
		panic(err) // Floats always encode.
	}
	return len(b)
}
