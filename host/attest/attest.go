// Package attest signs receipts and checks signatures. A signed receipt is an
// in-toto Statement with SLSA provenance in a DSSE envelope, signed with Ed25519.
//
//	key, err := attest.ParsePrivateKey(pem)
//	...
//	statement, err := attest.NewStatement(receipt, attest.NewRun("https://ci.example.org/release"))
//	...
//	envelope, err := attest.Sign(ctx, statement, key)
//	...
//	statement, err = attest.Check{Key: key.Public(), Receipt: receipt}.Verify(envelope)
//
// The same receipt, key, builder and times give the same bytes. A signature does
// not show that a receipt is right: package verify checks that.
//
// An [Error] reports an invalid key, envelope or statement; a [Mismatch] reports an
// envelope that fails a [Check]. Values may be used by many goroutines at once,
// unless one of them changes them.
package attest

import "fmt"

// Error explains in one line why a text is not a key, an envelope or a statement.
type Error string

func (e Error) Error() string { return string(e) }

func errorf(format string, args ...any) error { return Error(fmt.Sprintf(format, args...)) }
