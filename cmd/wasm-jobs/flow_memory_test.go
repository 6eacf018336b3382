package main

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// TestHoldsMany: the collector works more for many children and very many roots only.
func TestHoldsMany(t *testing.T) {
	for _, test := range []struct {
		name  string
		items flow.Items
		want  bool
	}{
		{"nothing", flow.Items{}, false},
		{"the first roots of many", flow.Items{Roots: 1_000_000, Total: 10}, false},
		{"a million roots", flow.Items{Roots: 1_000_000, Total: 1_000_000}, false},
		{"ten million roots", flow.Items{Roots: 10_000_000}, true},
		{"a million children of one root", flow.Items{Roots: 1, Total: 1_000_001}, true},
		{"few children of many roots", flow.Items{Roots: 1_000_000, Total: 1_200_000}, false},
	} {
		if got := holdsMany(&test.items); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
