package receipt_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// proved returns a receipt of some outputs, and a proof of each.
func proved(t *testing.T, ids ...abi.ID) (*receipt.Receipt, []*receipt.Proof) {
	t.Helper()
	var prover merkle.Prover
	output := func(i int) []byte { return abi.AppendHead(nil, abi.MajorUint, uint64(i*i)) }
	for i, id := range ids {
		prover.Keep()
		prover.AddEntry(id, output(i))
	}
	r := sample()
	r.Chunks, r.Outputs = uint64(len(ids)), prover.Root()
	var proofs []*receipt.Proof
	for i, id := range ids {
		p, err := prover.Proof(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		proofs = append(proofs, receipt.NewProof(id, output(i), p))
	}
	return r, proofs
}

func TestProofsHold(t *testing.T) {
	for _, ids := range [][]abi.ID{
		{abi.IntID(1<<64 - 1)},
		{abi.IntID(0), abi.IntID(7), abi.IntID(300), abi.TextID(""), abi.TextID("7"), abi.TextID("é<&>\u2028\"\\\n")},
	} {
		r, proofs := proved(t, ids...)
		for _, p := range proofs {
			b, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again, err := receipt.ParseProof(b)
			if err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			if err := again.Verify(r); err != nil || again.ID != p.ID || !bytes.Equal(again.Output, p.Output) {
				t.Errorf("%v: %v, output %x", p.ID, err, again.Output)
			}
		}
	}
}

func TestProofOfAnotherReceipt(t *testing.T) {
	r, proofs := proved(t, abi.IntID(1), abi.IntID(2), abi.IntID(3))
	r.Outputs[5] ^= 1
	if err := proofs[1].Verify(r); !errors.Is(err, receipt.ErrNotProved) {
		t.Errorf("other outputs: %v", err)
	}
	r.Outputs[5] ^= 1
	r.Chunks++
	if err := proofs[1].Verify(r); !errors.Is(err, receipt.ErrNotProved) || !strings.Contains(err.Error(), "3 chunks") {
		t.Errorf("another number of chunks: %v", err)
	}
}

func TestParseProofRefuses(t *testing.T) {
	_, proofs := proved(t, abi.IntID(1), abi.IntID(2))
	b, err := proofs[0].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q not found in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	hash := strings.Repeat("0", 64)
	for _, test := range []struct{ name, text, says string }{
		{"nothing", "", ": empty"},
		{"half", good[:20], "truncated"},
		{"more", good + " ", "line "},
		{"no path", good[:strings.Index(good, "[")] + "null,\n  \"size\": 2,\n  \"version\": 1\n}\n", "missing path"},
		{"a long path", change("[", "["+strings.Repeat(`"`+hash+`",`, 64)), "path too large: 65 hashes"},
		{"half a byte", change(`"output": "00"`, `"output": "000"`), "odd length hex string"},
		{"upper case", change(`"output": "00"`, `"output": "4B"`), "truncated"},
		{"no item", change(`"output": "00"`, `"output": ""`), "the output is not a CBOR item"},
		{"two items", change(`"output": "00"`, `"output": "0000"`), "the output is not a CBOR item"},
		{"a negative id", change(`"id": 1`, `"id": -1`), "invalid proof"},
		{"a float", change(`"id": 1`, `"id": 1.5`), "invalid proof"},
		{"a map", change(`"id": 1`, `"id": {}`), "invalid proof"},
		{"an unknown field", change(`"id": 1`, "\"extra\": 1,\n  \"id\": 1"), `unknown field "extra"`},
		{"another version", change(`"version": 1`, `"version": 3`), "version 3"},
	} {
		_, err := receipt.ParseProof([]byte(test.text))
		if !errors.Is(err, receipt.ErrProofForm) {
			t.Errorf("%s: error %v", test.name, err)
		} else if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, expected one line with %q", test.name, err, test.says)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	f.Add([]byte("{\n  \"id\": 1,\n  \"index\": 0,\n  \"output\": \"00\",\n  \"path\": [],\n  \"size\": 1,\n  \"version\": 1\n}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := receipt.ParseProof(b)
		if err != nil {
			if !errors.Is(err, receipt.ErrProofForm) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		if own, err := p.Marshal(); err != nil || !bytes.Equal(own, b) {
			t.Errorf("the encoding changed after reading: %v", err)
		}
		if err := p.Verify(sample()); err != nil && !errors.Is(err, receipt.ErrNotProved) {
			t.Errorf("error %v", err)
		}
	})
}
