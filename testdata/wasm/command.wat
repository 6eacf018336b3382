;; A WASI command: _start and no exec. It writes hello to standard output.
;; Build: make -C guest-examples wat
(module $command
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\20\00\00\00\06\00\00\00") ;; 6 bytes at 32
  (data (i32.const 32) "hello\n")
  (func $_start (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))
