package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// variablePrefix begins the names of environment variables with defaults of flags.
const variablePrefix = "WASM_JOBS_"

// variable returns the environment variable with the default of a flag.
func variable(name string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// ownVariable are the flags whose defaults do not come from here. The variable of
// --store names a store that may have a password; see storeDir. --limit would take
// chunks away without a word.
var ownVariable = []string{"store", "limit"}

// hasVariable reports whether a flag has an environment variable: if it has a default.
func hasVariable(flag cli.Flag) bool {
	if seed, ok := flag.(*cli.Uint64Flag); ok && seed.Name == "seed" {
		return true // the default is 0
	}
	value, _ := defaultOf(flag)
	return value != "" && !slices.Contains(ownVariable, nameOf(flag))
}

// setDefaults replaces the defaults of flags by those in the environment. given are the
// flags on the command line, which win. It returns the names of the other flags whose
// defaults are from the environment.
func setDefaults(flags []cli.Flag, given map[string]string) (used []string, err error) {
	if !slices.ContainsFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, variablePrefix) }) {
		return nil, nil
	}
	for _, flag := range flags {
		name := nameOf(flag)
		value := os.Getenv(variable(name))
		if _, wins := given[name]; wins || value == "" || !hasVariable(flag) {
			continue
		}
		if err := checkValue(flag, variable(name), value); err != nil {
			return nil, err
		}
		setDefault(flag, variable(name))
		used = append(used, name)
	}
	return used, nil
}

// environmentKey is the key of App.Metadata with the flags whose defaults are from the
// environment.
const environmentKey = "environment"

// fromVariable reports whether the value of a flag is from the environment.
func fromVariable(ctx *cli.Context, name string) bool {
	used, _ := ctx.App.Metadata[environmentKey].([]string)
	return slices.Contains(used, name)
}

// isChosen reports whether a flag is given, or has a default from the environment.
func isChosen(ctx *cli.Context, name string) bool {
	return isSet(ctx, name) || fromVariable(ctx, name)
}

func setDefault(flag cli.Flag, variable string) {
	from := []string{variable}
	switch f := flag.(type) {
	case *cli.StringFlag:
		f.EnvVars = from
	case *cli.IntFlag:
		f.EnvVars = from
	case *cli.DurationFlag:
		f.EnvVars = from
	case *cli.Uint64Flag:
		f.EnvVars = from
	case *cli.Float64Flag:
		f.EnvVars = from
	}
}

// checkValue refuses a value that the flag's type does not have. name is the flag as it
// was typed, or a variable.
func checkValue(flag cli.Flag, name, value string) (err error) {
	want := ""
	switch flag.(type) {
	case *cli.IntFlag:
		want = "an integer"
		_, err = strconv.ParseInt(value, 0, 64)
	case *cli.Uint64Flag:
		want = "an integer, 0 or more"
		_, err = strconv.ParseUint(value, 0, 64)
	case *cli.Float64Flag:
		want = "a number"
		_, err = strconv.ParseFloat(value, 64)
	case *cli.DurationFlag:
		want = "a time such as 30s, 5m or 0"
		_, err = time.ParseDuration(value)
	case *cli.BoolFlag:
		want = "true or false"
		_, err = strconv.ParseBool(value)
	}
	if err != nil {
		return usageErrorf("invalid %s %q: want %s", name, value, want)
	}
	return nil
}

// fromEnvironment adds to a usage error the variables of the flags that took part in the
// command.
func fromEnvironment(err error, used []string) error {
	if err == nil || len(used) == 0 || exitCode(err) != exitRefused {
		return err
	}
	variables := make([]string, len(used))
	for i, name := range used {
		variables[i] = variable(name)
	}
	return fmt.Errorf("%w (the environment sets %s)", err, strings.Join(variables, ", "))
}
