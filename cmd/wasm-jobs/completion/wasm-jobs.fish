# Completion of wasm-jobs for fish. Load it with
#     wasm-jobs completion fish | source
# or save it as ~/.config/fish/completions/wasm-jobs.fish.
function __wasm_jobs_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path $current
        else
            echo $line
        end
    end
end
complete -c wasm-jobs -f -a '(__wasm_jobs_complete)'
