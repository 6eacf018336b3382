;; Imports that the host does not have: of another module, of unknown names, of a
;; wrong type and of a wrong kind.
;; Build: make -C guest-examples wat
(module $unknown-imports
  (import "env" "abort" (func $abort (param i32 i32 i32 i32)))
  (import "wasm_jobs" "sleep" (func $sleep (param i64)))
  (import "wasm_jobs" "heartbeat" (func $heartbeat (result i64)))
  (import "wasi_snapshot_preview1" "fd_bogus" (func $fd_bogus (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (global $random_get i32))
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32)
    (local $missing i64)
    (local.set $missing (i64.sub
      (i64.add (i64.extend_i32_u (local.get $size)) (i64.const 64))
      (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))))
    (if (i64.gt_s (local.get $missing) (i64.const 0)) (then
      (if (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64
            (i64.shr_u (i64.add (local.get $missing) (i64.const 0xffff)) (i64.const 16)))))
        (then (return (i32.const 0))))))
    (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
      (i64.extend_i32_u (local.get $size)))))
