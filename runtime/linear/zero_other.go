//go:build !amd64

package linear

// zero makes all bytes of b 0.
func zero(b []byte) { clear(b) }
