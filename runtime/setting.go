package runtime

import (
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Setting is the name of a field of [Settings] in messages: "Settings.Memory".
type Setting string

// The settings that a [RefusedError] or a failure may name.
const (
	SettingContext   Setting = "Settings.Context"
	SettingMemory    Setting = "Settings.Memory"
	SettingStack     Setting = "Settings.Stack"
	SettingMaxOutput Setting = "Settings.MaxOutput"
	SettingArgs      Setting = "Settings.Command.Args"
	SettingEnv       Setting = "Settings.Command.Env"
	SettingStdin     Setting = "Settings.Command.Stdin"
	SettingDirs      Setting = "Settings.Command.Dirs"
)

// Ends of the messages of failures that another setting avoids.
const (
	raiseMaxOutput = ": " + string(SettingMaxOutput) + " raises it"
	giveCBOR       = ": " + string(SettingStdin) + " cbor gives it any chunk, as CBOR"
)

// SettingOf returns the setting that the message of a failure suggests to
// change, or "" if there is none. It needs only the class and the message, so f
// may come from a record. The message of a stack overflow does not name its setting,
// which limits metered calls.
func SettingOf(f *abi.Failure) Setting {
	switch {
	case f.Class == abi.ClassTrap && strings.HasPrefix(f.Message, stackOverflow):
		return SettingStack
	case f.Class != abi.ClassABI:
	case strings.HasSuffix(f.Message, raiseMaxOutput):
		return SettingMaxOutput
	case strings.HasSuffix(f.Message, giveCBOR):
		return SettingStdin
	}
	return ""
}
