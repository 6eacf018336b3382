//go:build ignore

// Command make writes the sample database of the tests, as it is before its log
// is written back: go run testdata/make.go in the directory of the package.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
)

var statements = []string{
	"pragma journal_mode=wal", "pragma wal_autocheckpoint=0", "create table a(x, y, z)",
	"insert into a values(-1, zeroblob(0), 'text'), (9223372036854775807, zeroblob(4000), 0), (1, x'ff', null)",
	"pragma wal_checkpoint",
	"insert into a values(-32768, cast(replace(hex(zeroblob(4000)), '00', 'abc') as blob), -8388608)",
	"insert into a select value, null, value*value*value from json_each('[1000, 100000, -1000000]')",
}

func main() {
	dir, err := os.MkdirTemp("", "dbfile")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a.db")
	c, err := sqlite3.Open("file:" + filepath.ToSlash(path))
	check(err)
	check(c.Exec("pragma page_size=4096"))
	check(c.EnableChecksums("main"))
	for _, s := range statements {
		check(c.Exec(s))
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		check(err)
		check(os.WriteFile("testdata/sample.db"+suffix, b, 0o600))
		fmt.Println(len(b))
	}
	check(c.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
