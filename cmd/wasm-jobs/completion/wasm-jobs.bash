# Completion of wasm-jobs for bash. Load it with
#     source <(wasm-jobs completion bash)
# or save it as ~/.local/share/bash-completion/completions/wasm-jobs.
_wasm_jobs() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :*) ;; # the default is files
        *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _wasm_jobs wasm-jobs
