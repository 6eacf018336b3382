;; A chunk that is an integer from 1 to 23 sets off the bomb with that number in
;; the table at the end; any other chunk is its own output. No bomb ends by
;; itself, except 23.
;; Build: make -C guest-examples wat
(module $bomb
  (import "wasm_jobs" "log" (func $log (param i32 i32 i32)))
  (import "wasm_jobs" "fail" (func $fail (param i32 i32 i32)))
  (import "wasm_jobs" "heartbeat" (func $heartbeat (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (global $count (mut i64) (i64.const 0))
  (func $alloc (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 0x10000)) (then (return (i32.const 0))))
    (i32.const 0x10000))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (local $bomb i32)
    (local.set $bomb (i32.load8_u (local.get $ptr)))
    (if (i32.and (i32.eq (local.get $size) (i32.const 1)) (i32.lt_u (local.get $bomb) (i32.const 24)))
      (then (call_indirect (local.get $bomb))))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
      (i64.extend_i32_u (local.get $size))))

  (func $nothing)
  (func $loop (loop $l (br $l)))
  ;; 2^30 calls in a binary tree, without any loop.
  (func $tree (call $branch (i32.const 29)))
  (func $branch (param $depth i32)
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (if (local.get $depth) (then
      (call $branch (i32.sub (local.get $depth) (i32.const 1)))
      (call $branch (i32.sub (local.get $depth) (i32.const 1))))))
  (func $recurse (call $deeper (i32.const 0)) drop)
  (func $deeper (param $n i32) (result i32)
    (i32.add (local.get $n) (call $deeper (i32.add (local.get $n) (i32.const 1)))))

  ;; swell takes all available memory, and returns its size in bytes (at most 2^32-64Ki).
  (func $swell (result i32)
    (local $pages i32)
    (local.set $pages (i32.const 0x8000))
    (loop $halve
      (loop $more
        (br_if $more (i32.ne (i32.const -1) (memory.grow (local.get $pages)))))
      (br_if $halve (local.tee $pages (i32.shr_u (local.get $pages) (i32.const 1)))))
    (i32.shl (memory.size) (i32.const 16)))
  (func $fill
    (local $size i32)
    (local.set $size (call $swell))
    (loop $l (memory.fill (i32.const 0) (i32.const 0xaa) (local.get $size)) (br $l)))
  (func $copy ;; by one byte, so that both overlap, and back
    (local $size i32)
    (local.set $size (i32.sub (call $swell) (i32.const 1)))
    (loop $l
      (memory.copy (i32.const 1) (i32.const 0) (local.get $size))
      (memory.copy (i32.const 0) (i32.const 1) (local.get $size))
      (br $l)))
  (func $fills (loop $l ;; of a small size
    (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 64)) (br $l)))

  (func $clocks (loop $l
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8)))
    (br $l)))
  (func $yields (loop $l ;; the host function with the least around it
    (drop (call $sched_yield)) (drop (call $sched_yield)) (drop (call $sched_yield)) (drop (call $sched_yield))
    (br $l)))
  (func $heartbeats (loop $l (drop (call $heartbeat)) (br $l)))
  (func $logs (loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 0x20000)) (br $l)))
  (func $fails (loop $l (call $fail (i32.const 2) (i32.const 0) (i32.const 0x20000)) (br $l)))

  ;; spans describes $count buffers of $size bytes at 0x20000, from address 0 on.
  (func $spans (param $count i32) (param $size i32)
    (local $at i32)
    (local.set $at (i32.const 0x20000))
    (loop $l
      (i32.store offset=4 (local.get $at) (local.get $size))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $l (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
  (func $write (loop $l
    (drop (call $fd_write (i32.const 1) (i32.const 0x20000) (i32.const 1024) (i32.const 0x30000)))
    (br $l)))
  (func $lines ;; 16 Mi empty lines at once
    (memory.fill (i32.const 0) (i32.const 10) (i32.const 0x20000))
    (call $spans (i32.const 1024) (i32.const 0x20000))
    (call $write))
  (func $text ;; one line without an end
    (call $spans (i32.const 1024) (i32.const 0x20000))
    (call $write))
  (func $void ;; 1,024 buffers of no bytes
    (call $spans (i32.const 1024) (i32.const 0))
    (call $write))
  (func $entropy
    (local $size i32)
    (local.set $size (call $swell))
    (loop $l (drop (call $random (i32.const 0) (local.get $size))) (br $l)))
  (func $polls ;; of 1,024 clocks
    (loop $l
      (drop (call $poll (i32.const 0x20000) (i32.const 0) (i32.const 1024) (i32.const 0x3fff0)))
      (br $l)))
  (func $poll1 (loop $l
    (drop (call $poll (i32.const 0x20000) (i32.const 0) (i32.const 1) (i32.const 0x3fff0)))
    (br $l)))

  (func $grow (drop (call $swell)) (unreachable))
  (func $denied (drop (call $swell)) ;; denied again and again
    (loop $l (drop (memory.grow (i32.const 1))) (br $l)))
  (func $grow0 (loop $l (drop (memory.grow (i32.const 0))) (br $l)))
  (func $leave (call $exit (i32.const 0)))

  (table funcref (elem
    $nothing $loop $tree $recurse $fill $copy $fills $clocks          ;; 0-7
    $yields $heartbeats $logs $fails $lines $text $void $entropy      ;; 8-15
    $polls $poll1 $grow $denied $grow0 $nothing $nothing $leave)))    ;; 16-23
