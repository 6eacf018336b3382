package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// settingFlags maps the settings that messages name to flags.
var settingFlags = map[runtime.Setting]string{
	runtime.SettingContext:   "--context",
	runtime.SettingMemory:    "--memory",
	runtime.SettingStack:     "--stack",
	runtime.SettingMaxOutput: "--max-output",
	runtime.SettingArgs:      "--arg",
	runtime.SettingEnv:       "--env",
	runtime.SettingStdin:     "--stdin",
	runtime.SettingDirs:      "--dir",
}

// maxChunkWords is [chunks.HintMaxChunk] in terms of flags.
const maxChunkWords = "--max-chunk SIZE sets the limit"

// stackWords follow the message of a stack overflow.
const stackWords = "; --stack SIZE sets the limit of metered calls"

// hintWords are the hints with flags instead of options. A hint that names no
// option is printed unchanged.
var hintWords = map[chunks.Hint]string{
	chunks.HintFormat:        "--chunk-format sequence makes each item of the file a chunk, --chunk-format array makes each element of the array a chunk",
	chunks.HintMaxChunk:      maxChunkWords,
	chunks.HintIDKey:         `use --id-key NAME or --id-key ""`,
	sources.HintSplit:        maxChunkWords + ", and --split SIZE cuts files",
	sources.HintSmallerSplit: maxChunkWords + ", and a smaller --split makes smaller parts",
	chunks.HintJSON:          string(chunks.HintJSON) + ", and --jsonl reads JSON",
	sources.HintComma:        "--delimiter sets the character between fields, such as ';' or tab",
	sources.HintBytes:        "--as bytes reads lines as byte strings",
}

// errorLine returns the message of an error. It names flags instead of the options
// and settings that the packages below the command name.
func errorLine(err error) string {
	if f, ok := errors.AsType[*abi.Failure](err); ok && runtime.SettingOf(f) == runtime.SettingStack && strings.HasSuffix(err.Error(), f.Message) {
		return err.Error() + stackWords
	}
	if words := sharedWords(err); words != "" {
		return err.Error() + ": " + words
	}
	if phrase, words := hintOf(err); words != "" {
		return replaceLast(err.Error(), phrase, words)
	}
	return err.Error()
}

// hintOf returns the phrase of an error that names an option or a setting, and the
// words that name flags instead. Both are "" if there is no such phrase.
func hintOf(err error) (phrase, words string) {
	if e, ok := errors.AsType[*sources.Error](err); ok { // first: it may be the cause of an InputError
		return string(e.Hint), hintWords[e.Hint]
	}
	if e, ok := errors.AsType[*chunks.InputError](err); ok {
		return string(e.Hint), hintWords[e.Hint]
	}
	if e, ok := errors.AsType[*runtime.RefusedError](err); ok {
		return string(e.Setting), settingFlags[e.Setting]
	}
	if f, ok := errors.AsType[*abi.Failure](err); ok {
		setting := runtime.SettingOf(f)
		return string(setting), settingFlags[setting]
	}
	return "", ""
}

// replaceLast replaces the last occurrence of phrase in text. Earlier occurrences may
// be quoted input.
func replaceLast(text, phrase, words string) string {
	if at := strings.LastIndex(text, phrase); at >= 0 {
		return text[:at] + words + text[at+len(phrase):]
	}
	return text
}

// failureMessage returns the message of a failure, which may come from a record, with
// flags instead of settings, as [errorLine] does.
func failureMessage(class abi.Class, message string) string {
	setting := runtime.SettingOf(&abi.Failure{Class: class, Message: message})
	switch setting {
	case "":
		return message
	case runtime.SettingStack:
		return message + stackWords
	}
	return replaceLast(message, string(setting), settingFlags[setting])
}

// problemTexts returns the problems of a module, with a flag instead of setting,
// which is "" if no problem names one.
func problemTexts(problems []string, setting runtime.Setting) []string {
	if setting == "" {
		return problems
	}
	texts := slices.Clone(problems)
	for i, problem := range texts {
		texts[i] = replaceLast(problem, string(setting), settingFlags[setting])
	}
	return texts
}

// failureCounts returns counts of failures by class and message, with flags instead
// of settings.
func failureCounts(short func(message string) string, counts map[string]int) map[string]int {
	texts := make(map[string]int, len(counts))
	for text, n := range counts {
		class, message, _ := strings.Cut(text, ": ")
		texts[class+": "+short(failureMessage(abi.Class(class), message))] += n
	}
	return texts
}
