;; Each chunk is its own output; aggregate counts the outputs and merge adds the
;; counts. Both return an integer of eight bytes, which is not the shortest form.
;; Build: make -C guest-examples wat
(module $echo-merge
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
      (i64.extend_i32_u (local.get $size))))
  ;; argument reads the argument of the head at $at, and returns the end of the head.
  (func $argument (param $at i32) (result i64 i32)
    (local $info i32) (local $left i32) (local $arg i64)
    (local.set $info (i32.and (i32.load8_u (local.get $at)) (i32.const 31)))
    (local.set $arg (i64.extend_i32_u (local.get $info)))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (if (i32.ge_u (local.get $info) (i32.const 24)) (then
      (local.set $left (i32.shl (i32.const 1) (i32.and (local.get $info) (i32.const 3))))
      (local.set $arg (i64.const 0))
      (loop $byte
        (local.set $arg (i64.or (i64.shl (local.get $arg) (i64.const 8)) (i64.load8_u (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $byte (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
    (local.get $arg) (local.get $at))
  ;; number writes $n at address 16 as 1b and its eight bytes, big-endian.
  (func $number (param $n i64) (result i64)
    (local $i i32)
    (i32.store8 (i32.const 16) (i32.const 0x1b))
    (loop $byte
      (i64.store8 (i32.sub (i32.const 24) (local.get $i)) (local.get $n))
      (local.set $n (i64.shr_u (local.get $n) (i64.const 8)))
      (br_if $byte (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
    (i64.const 0x1000000009)) ;; 9 bytes at 16
  (func $aggregate (export "aggregate") (param $ptr i32) (param $size i32) (result i64)
    (call $argument (local.get $ptr))
    drop
    call $number)
  (func $merge (export "merge") (param $ptr i32) (param $size i32) (result i64)
    (local $left i64) (local $at i32) (local $total i64)
    (call $argument (local.get $ptr))
    (local.set $at) (local.set $left)
    (block $done
      (loop $partial
        (br_if $done (i64.eqz (local.get $left)))
        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
        (call $argument (local.get $at))
        (local.set $at)
        (local.set $total (i64.add (local.get $total)))
        (br $partial)))
    (call $number (local.get $total))))
