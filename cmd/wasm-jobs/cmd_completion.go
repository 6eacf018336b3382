package main

import (
	"bufio"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/sdk"
)

//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func completionCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the script that completes commands in a shell",
		UsageText: `wasm-jobs completion bash|zsh|fish

Example: source <(wasm-jobs completion bash)
         source <(wasm-jobs completion zsh)
         wasm-jobs completion fish | source

The script asks wasm-jobs for the commands, the flags and their values. To have it in
each new shell, add the line to ~/.bashrc, to ~/.zshrc after compinit, or to
~/.config/fish/config.fish.`,
		ArgsUsage: strings.Join(shells, "|"),
		Action: func(ctx *cli.Context) error {
			shell := ctx.Args().First()
			if ctx.NArg() != 1 || !slices.Contains(shells, shell) {
				return usageErrorf("invalid SHELL %q: want bash, zsh or fish", strings.Join(ctx.Args().Slice(), " "))
			}
			script, err := completionScripts.ReadFile("completion/wasm-jobs." + shell)
			if err != nil {
				return err
			}
			_, err = c.out.Write(script)
			return outputError(err)
		},
	}
}

// completeWord is the hidden verb that completion scripts call, with the words after
// the program up to the cursor. The last of them is completed, and may be empty.
const completeWord = "__complete"

// candidate is a word that may stand at the cursor.
type candidate struct{ word, text string }

// filesToo is the line that tells a script to offer files.
const filesToo = ":files"

// complete prints candidates for the last word, one a line, each with a tab and a text
// if there is one. The last line may be [filesToo].
func complete(app *cli.App, words []string, out io.Writer) error {
	found, files := completions(app, words)
	w := bufio.NewWriter(out)
	for _, f := range found {
		if f.text == "" {
			fmt.Fprintln(w, f.word)
		} else {
			fmt.Fprintf(w, "%s\t%s\n", f.word, f.text)
		}
	}
	if files {
		fmt.Fprintln(w, filesToo)
	}
	return outputError(w.Flush())
}

// completions returns the candidates for the last word that begin with it, and whether
// it may be a file.
func completions(app *cli.App, words []string) (found []candidate, files bool) {
	// bash takes --flag=value for three words.
	empty := len(words) == 0 || words[len(words)-1] == "="
	words = slices.DeleteFunc(slices.Clone(words), func(word string) bool { return word == "=" })
	if empty {
		words = append(words, "")
	}
	last := words[len(words)-1]
	v, commands := verbBefore(app, words[:len(words)-1])
	prefix := last
	switch {
	case v == nil:
		return nil, false
	case len(commands) > 0:
		found = commandCandidates(v, commands)
	default:
		found, prefix, files = v.candidates(last)
	}
	return slices.DeleteFunc(found, func(f candidate) bool { return !strings.HasPrefix(f.word, prefix) }), files
}

// verbBefore finds the verb of the words before the cursor. It returns nil if they are
// not a verb, and the commands that may follow if the verb is not complete.
func verbBefore(app *cli.App, words []string) (*foundVerb, []*cli.Command) {
	v := &foundVerb{rest: words}
	commands := app.Commands
	if len(words) > 0 && words[0] == "help" {
		v.rest = words[1:]
	}
	for len(commands) > 0 && len(v.rest) > 0 {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(v.rest[0]) })
		if at < 0 {
			return nil, nil
		}
		v.words, v.command, v.rest = append(v.words, v.rest[0]), commands[at], v.rest[1:]
		commands = v.command.Subcommands
	}
	return v, commands
}

func commandCandidates(v *foundVerb, commands []*cli.Command) (found []candidate) {
	for _, c := range commands {
		found = append(found, candidate{c.Name, c.Usage})
	}
	found = append(found, candidate{"--help", ""})
	if v.command == nil {
		found = append(found, candidate{"help", "print the page of a command"}, candidate{"--version", ""})
	}
	return found
}

// candidates returns the words that may stand after those of v.
func (v *foundVerb) candidates(last string) (found []candidate, prefix string, files bool) {
	known := flagsByName(v.command)
	if slices.Contains(v.rest, "--") {
		return nil, last, true
	}
	if len(v.rest) > 0 {
		typed := v.rest[len(v.rest)-1]
		if flag := known[strings.TrimLeft(typed, "-")]; flag != nil && strings.HasPrefix(typed, "-") && takesValue(flag) {
			found, files = v.values(flag, "")
			return found, last, files
		}
	}
	name, _, joined := strings.Cut(last, "=")
	switch flag := known[strings.TrimLeft(name, "-")]; {
	case strings.HasPrefix(last, "-") && joined && flag != nil:
		found, files = v.values(flag, name+"=")
		return found, last, files && len(found) == 0
	case strings.HasPrefix(last, "-") && last != "-":
		return v.flagCandidates(), last, false
	case v.command.Name == "completion":
		return wordCandidates(shells), last, false
	}
	return nil, last, true
}

func takesValue(flag cli.Flag) bool {
	_, isBool := flag.(*cli.BoolFlag)
	return !isBool
}

func (v *foundVerb) flagCandidates() (found []candidate) {
	for _, flag := range visibleFlags(v.command) {
		d := describeFlag(v.command, flag)
		text, _, _ := strings.Cut(d.text, "; ")
		found = append(found, candidate{dashes(d.names[0]), text})
	}
	return append(found, candidate{"--help", ""}, candidate{"--help-all", ""})
}

// values returns the values of a flag, with a prefix, and whether it takes files.
func (v *foundVerb) values(flag cli.Flag, prefix string) (found []candidate, files bool) {
	d := describeFlag(v.command, flag)
	choices := strings.Split(d.placeholder, "|")
	switch {
	case d.names[0] == "lang":
		choices = sdk.Languages()
	case d.names[0] == "example":
		choices = sdk.Examples()
	case len(choices) == 1 || strings.ToLower(choices[0]) != choices[0]:
		files = slices.Contains([]string{"FILE", "DIR", "PATH", "HOST:GUEST"}, d.placeholder)
		return nil, files
	}
	for _, choice := range choices {
		found = append(found, candidate{prefix + choice, ""})
	}
	return found, false
}

func wordCandidates(words []string) (found []candidate) {
	for _, word := range words {
		found = append(found, candidate{word, ""})
	}
	return found
}
