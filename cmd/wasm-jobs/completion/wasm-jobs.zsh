#compdef wasm-jobs
# Completion of wasm-jobs for zsh. Load it after compinit with
#     source <(wasm-jobs completion zsh)
# or save it as _wasm-jobs in a directory of fpath.
_wasm_jobs() {
    local line files
    local -a found
    for line in "${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        :files) files=1 ;;
        *$'\t'*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        ?*) found+=("${line//:/\\:}") ;;
        esac
    done
    (( $#found )) && _describe -V wasm-jobs found
    [[ -z $files ]] || _files
}
if [[ $funcstack[1] == _wasm_jobs || $funcstack[1] == _wasm-jobs ]]; then
    _wasm_jobs "$@"
else
    compdef _wasm_jobs wasm-jobs
fi
