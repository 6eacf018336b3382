// Programs that run as WASI commands in tests, with the versions that are built.
module github.com/wasm-jobs/wasm-jobs/testdata/programs

go 1.24

// The line editor of glua knows no WASI, and is only used where no script is
// given.
replace github.com/chzyer/readline => ./readline

tool (
	github.com/benhoyt/goawk
	github.com/itchyny/gojq/cmd/gojq
	github.com/yuin/gopher-lua/cmd/glua
)

require (
	github.com/benhoyt/goawk v1.29.1 // indirect
	github.com/chzyer/readline v0.0.0-20180603132655-2972be24d48e // indirect
	github.com/itchyny/gojq v0.12.16 // indirect
	github.com/itchyny/timefmt-go v0.1.6 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/mattn/go-runewidth v0.0.15 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.20.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
