package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// line is a command line that cli can read.
type line struct {
	args     []string
	defaults []string // flags whose defaults are from the environment
}

// readLine finds the verb of a command line, and moves its flags before its arguments,
// because cli looks for them only there. It refuses mistakes that cli would silently
// accept or say less of: a flag without its value at the end of the line, a second value
// of a flag that takes one, and unknown names. The error is a [helpRequest] if the line
// asks for help.
func readLine(app *cli.App, args []string) (line, error) {
	v, err := findVerb(app, args)
	if err != nil {
		return line{}, err
	}
	a := arrangement{verb: v, known: flagsByName(v.command), given: map[string]string{}}
	if err := cmp.Or(a.read(v.rest), a.invalid); err != nil {
		return line{}, err
	}
	used, err := setDefaults(v.command.Flags, a.given)
	return line{slices.Concat(v.words, a.flags, []string{"--"}, a.rest), used}, err
}

// foundVerb is the verb of a command line.
type foundVerb struct {
	words   []string // the program, and the names of the verb
	command *cli.Command
	rest    []string // after the words
}

func (v *foundVerb) String() string { return strings.Join(v.words, " ") }

func (v *foundVerb) help(all bool) error { return &helpRequest{v.words, v.command, all} }

// findVerb reads the words before the flags.
func findVerb(app *cli.App, args []string) (*foundVerb, error) {
	v := &foundVerb{words: []string{app.Name}, rest: args[min(1, len(args)):]}
	if len(v.rest) == 0 {
		return nil, v.help(false)
	}
	asked := v.rest[0] == "help"
	if asked {
		v.rest = v.rest[1:]
	}
	commands := app.Commands
	for len(commands) > 0 && len(v.rest) > 0 {
		word := v.rest[0]
		switch {
		case isHelp(word):
			return nil, v.help(word == "--help-all")
		case v.command == nil && verbOf(word) != word:
			word = verbOf(word)
		case word != "-" && strings.HasPrefix(word, "-"):
			return nil, flagBeforeCommand(v, word)
		}
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if at < 0 {
			return nil, unknownCommand(v.String(), word, commands)
		}
		v.words, v.command, v.rest = append(v.words, word), commands[at], v.rest[1:]
		commands = v.command.Subcommands
	}
	if asked || len(commands) > 0 {
		return nil, v.help(false)
	}
	return v, nil
}

func isHelp(word string) bool {
	return word == "-h" || word == "--help" || word == "-help" || word == "--help-all" || word == "-help-all"
}

// flagBeforeCommand returns the error for a flag in the place of a command.
func flagBeforeCommand(v *foundVerb, word string) error {
	if name := nearest(strings.TrimLeft(word, "-"), []string{"help", "help-all", "version"}); name != "" {
		return usageErrorf("unknown flag %s; did you mean %s?", word, dashes(name))
	}
	return usageErrorf("flag %s before the command: want %s COMMAND %s", word, v, word)
}

func flagsByName(command *cli.Command) map[string]cli.Flag {
	known := map[string]cli.Flag{}
	for _, flag := range command.Flags {
		for _, name := range flag.Names() {
			known[name] = flag
		}
	}
	return known
}

// arrangement is a command line, split into flags and arguments.
type arrangement struct {
	verb        *foundVerb
	known       map[string]cli.Flag
	given       map[string]string // values, by the name of the flag
	flags, rest []string
	invalid     error // of the first value that its flag does not take
}

func (a *arrangement) read(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			a.rest = append(a.rest, args...)
			return nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			a.rest = append(a.rest, arg)
			continue
		}
		taken, err := a.flag(arg, args)
		if err != nil {
			return err
		}
		args = args[taken:]
	}
	return nil
}

// flag takes a flag, and its value if that is the next word. It returns how many
// words it took after the flag.
func (a *arrangement) flag(arg string, next []string) (taken int, err error) {
	a.flags = append(a.flags, arg)
	typed, value, joined := strings.Cut(arg, "=")
	name := strings.TrimLeft(typed, "-")
	flag := a.known[name]
	switch {
	case flag == nil && isHelp(arg):
		return 0, a.verb.help(strings.HasSuffix(arg, "-all"))
	case flag == nil:
		return 0, unknownFlag(a.verb.String(), typed, name, a.known)
	}
	_, isBool := flag.(*cli.BoolFlag)
	switch {
	case joined || isBool:
	case len(next) == 0:
		return 0, usageErrorf("missing value for %s at the end of the line", spelled(flag))
	default:
		taken, value = 1, next[0]
		a.flags = append(a.flags, value)
	}
	return taken, a.once(flag, isBool, value)
}

// once records that a flag is given. Only a list may be given again, or a boolean
// flag with the same value.
func (a *arrangement) once(flag cli.Flag, isBool bool, value string) error {
	_, isList := flag.(*cli.StringSliceFlag)
	before, again := a.given[nameOf(flag)]
	a.given[nameOf(flag)] = value
	if again && !isList && !(isBool && value == before) {
		return usageErrorf("duplicate %s: give it once", spelled(flag))
	}
	if !isBool || value != "" {
		a.invalid = cmp.Or(a.invalid, checkValue(flag, spelled(flag), value))
	}
	return nil
}

// spelled returns a flag with all its names, as they are typed.
func spelled(flag cli.Flag) string {
	names := slices.Clone(flag.Names())
	for i, name := range names {
		names[i] = "--" + name
		if len(name) == 1 {
			names[i] = "-" + name
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return names[0] + " (" + strings.Join(names[1:], ", ") + ")"
}

// maxWorkers bounds --workers, because each worker has an instance with its memory.
// Far fewer workers keep all processors busy.
const maxWorkers = 4096

// limitWorkers bounds --workers of a command that has it.
func limitWorkers(command *cli.Command) {
	for _, flag := range command.Flags {
		if workers, ok := flag.(*cli.IntFlag); ok && workers.Name == "workers" {
			workers.Action = func(_ *cli.Context, n int) error {
				if n > maxWorkers {
					return usageErrorf("invalid --workers %d: too large, want at most %d", n, maxWorkers)
				}
				return nil
			}
		}
	}
}
