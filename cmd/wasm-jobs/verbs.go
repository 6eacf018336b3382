package main

import "github.com/urfave/cli/v2"

// maker makes the command of a verb.
type maker struct {
	name string
	make func(*console) *cli.Command
}

// makers returns the makers of all verbs, in the order of the help.
func makers() []maker {
	return []maker{
		{"run", runCommand},
		{"serve", serveCommand},
		{"pipe", pipeCommand},
		{"chunks", chunksCommand},
		{"inspect", inspectCommand},
		{"list", listCommand},
		{"status", statusCommand},
		{"info", infoCommand},
		{"describe", describeCommand},
		{"output", outputCommand},
		{"report", reportCommand},
		{"ui", uiCommand},
		{"top", topCommand},
		{"new", newCommand},
		{"doctor", doctorCommand},
		{"dev", devCommand},
		{"test", testCommand},
		{"check", checkCommand},
		{"bench", benchCommand},
		{"redrive", redriveCommand},
		{"replay", replayCommand},
		{"verify", verifyCommand},
		{"prove", proveCommand},
		{"verify-proof", verifyProofCommand},
		{"diff", diffCommand},
		{"sign", signCommand},
		{"verify-signature", verifySignatureCommand},
		{"keygen", keygenCommand},
		{"flow", flowCommand},
		{"worker", workerCommand},
		{"submit", submitCommand},
		{"wait", waitCommand},
		{"cancel", cancelCommand},
		{"pause", pauseCommand},
		{"resume", resumeCommand},
		{"set", setCommand},
		{"workers", workersCommand},
		{"migrate", migrateCommand},
		{"delete", deleteCommand},
		{"prune", pruneCommand},
		{"fsck", fsckCommand},
		{"completion", completionCommand},
		{"version", versionCommand},
	}
}

// makeVerbs returns the verb of a name; all verbs, if there is none.
func makeVerbs(c *console, only string) []*cli.Command {
	var all []*cli.Command
	for _, m := range makers() {
		if m.name == only {
			return []*cli.Command{m.make(c)}
		}
	}
	for _, m := range makers() {
		all = append(all, m.make(c))
	}
	return all
}

// verbOf returns the name of the verb that a first word stands for.
func verbOf(word string) string {
	if word == "-v" || word == "--version" {
		return "version"
	}
	return word
}
