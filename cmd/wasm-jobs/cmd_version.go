package main

import (
	"fmt"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

const abiVersion = abi.Version

func versionCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", UsageText: "wasm-jobs version [--json]\n\nExample: wasm-jobs version",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(ctx *cli.Context) error {
			v := readVersion()
			if ctx.Bool("json") {
				return outputError(writeJSON(c.out, v))
			}
			_, err := fmt.Fprintf(c.out, "wasm-jobs %s (ABI %d, wazero %s, %s)\n", v.Version, v.ABI, v.Wazero, v.Go)
			return outputError(err)
		},
	}
}

// versions are the versions of everything that can change a result.
type versions struct {
	Version string `json:"version"`
	ABI     int    `json:"abi"`
	Wazero  string `json:"wazero"`
	Go      string `json:"go"`
}

func readVersion() versions {
	v := versions{Version: "unknown", ABI: abiVersion, Wazero: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = info.Main.Version, info.GoVersion
	for _, d := range info.Deps {
		if d.Path == "github.com/tetratelabs/wazero" {
			v.Wazero = d.Version
		}
	}
	return v
}
