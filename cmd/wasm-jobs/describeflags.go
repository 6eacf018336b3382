package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// settingOptions returns the flags of run that give a job's settings. Those that are
// usually left out are there only if they are not the default.
func settingOptions(s *spec.Settings) (flags []string) {
	add := func(given bool, flag string) {
		if given {
			flags = append(flags, flag)
		}
	}
	add(true, "--seed="+strconv.FormatUint(s.Seed, 10))
	add(true, "--memory="+sizeText(s.Memory))
	add(s.OtherStack() > 0, "--stack="+sizeText(s.Stack))
	add(s.Fuel > 0, "--fuel="+strconv.FormatUint(s.Fuel, 10))
	add(true, "--timeout="+durationText(s.Timeout))
	add(true, "--fold-timeout="+durationText(s.FoldTimeout))
	add(true, "--max-output="+sizeText(s.MaxOutput))
	add(true, "--max-aggregate="+sizeText(s.MaxAggregate))
	add(true, "--retries="+strconv.Itoa(s.Retries))
	add(s.Classes != nil && !slices.Equal(s.Classes, host.DefaultRetryClasses()), "--retry-on="+cmp.Or(joinClasses(s.Classes), "none"))
	add(s.Deterministic, "--retry-deterministic")
	add(true, "--max-requeues="+strconv.Itoa(s.MaxRequeues))
	add(true, "--backoff="+durationText(s.Backoff))
	add(true, "--backoff-max="+durationText(s.BackoffMax))
	if s.MaxFailures != nil {
		add(true, "--max-failures="+strconv.Itoa(*s.MaxFailures))
	}
	add(s.Isolation != "" && s.Isolation != "reset", "--isolation="+s.Isolation)
	add(s.NativeNaNs, "--native-nans")
	add(s.NoMetering, "--no-metering")
	if c := s.Command; c != nil {
		for _, arg := range c.Args {
			add(true, "--arg="+arg)
		}
		for _, pair := range c.Env {
			add(true, "--env="+pair)
		}
		add(c.Stdin != "" && c.Stdin != "raw", "--stdin="+c.Stdin)
	}
	return flags
}

// skippedFile takes the place of the file of --skip-bad, which is not recorded: it
// changes no chunk.
const skippedFile = "skipped.jsonl"

// chunkFlags returns the flags of run that give a job's chunks. They are none for a
// chunk file.
func chunkFlags(c *spec.Chunks) (flags []string) {
	add := func(given bool, flag string) {
		if given {
			flags = append(flags, flag)
		}
	}
	if c.Kind != spec.KindFile && c.Kind != spec.KindRange && c.Kind != "" {
		paths := c.Paths
		if len(paths) == 0 {
			paths = []string{c.Path}
		}
		for _, path := range paths {
			add(true, "--"+string(c.Kind)+"="+path)
		}
	}
	add(c.Kind == spec.KindRange, "--range-of="+c.Range)
	add(c.Lines > 1, "--chunk-lines="+strconv.Itoa(c.Lines))
	add(c.Bytes > 0, "--chunk-bytes="+sizeText(c.Bytes))
	add(c.AsBytes, "--as=bytes")
	add(c.Delimiter != "" && c.Delimiter != ",", "--delimiter="+c.Delimiter)
	add(c.NoQuotes, "--quote=none")
	add(c.CSVTypes != "" && c.CSVTypes != "text", "--csv-types="+c.CSVTypes)
	add(c.Columns != "", "--select="+c.Columns)
	add(c.Rows > 0, "--chunk-rows="+strconv.Itoa(c.Rows))
	add(c.SkipBad, "--skip-bad="+skippedFile)
	add(c.Split > 0, "--split="+sizeText(c.Split))
	add(c.SplitLines, "--split-lines")
	add(c.NoIDKey, "--id-key=")
	add(c.IDKey != "", "--id-key="+c.IDKey)
	add(c.Format != "", "--chunk-format="+c.Format)
	add(c.MaxChunk > 0, "--max-chunk="+sizeText(c.MaxChunk))
	add(c.Limit > 0, "--limit="+strconv.Itoa(c.Limit))
	if c.Select != nil {
		add(c.Select.Ranges != "", "--range="+c.Select.Ranges)
		add(c.Select.IDs != "", "--ids="+shortText(c.Select.IDs))
	}
	return flags
}

// sizeText returns a size as flags take it: exact, in the largest unit that divides it.
func sizeText[T int64 | uint64](n T) string {
	text := strings.ReplaceAll(humanize.IBytes(uint64(n)), " ", "")
	if back, err := humanize.ParseBytes(text); err == nil && back == uint64(n) && n >= 1024 {
		return strings.Replace(text, ".0", "", 1)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// durationText returns a time as flags take it.
func durationText(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	return shortDuration(d)
}

// plainFlag are the characters that need no quotes in a shell.
const plainFlag = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,%+@"

// quoteFlags returns flags as they are typed in a shell.
func quoteFlags(flags []string) string {
	quoted := make([]string, len(flags))
	for i, flag := range flags {
		quoted[i] = flag
		if strings.Trim(flag, plainFlag) != "" {
			quoted[i] = "'" + strings.ReplaceAll(flag, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
