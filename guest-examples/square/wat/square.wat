;; square returns n * n for a chunk that is an integer n; the job's result is the
;; sum. Unlike in C and Go it takes no maps. Build: make -C guest-examples wat
(module $square
  (import "wasm_jobs" "fail" (func $fail (param i32 i32 i32)))

  ;; Outputs are at address 16, inputs start at 64.
  (memory (export "memory") 1)
  (data (i32.const 32) "not an integer")
  (data (i32.const 48) "overflow")

  ;; The host needs one input at a time, so each can overwrite the last.
  (func (export "alloc") (param $size i32) (result i32)
    (local $missing i64)
    (local.set $missing (i64.sub
      (i64.add (i64.extend_i32_u (local.get $size)) (i64.const 64))
      (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))))
    (if (i64.gt_s (local.get $missing) (i64.const 0)) (then
      (if (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64
            (i64.shr_u (i64.add (local.get $missing) (i64.const 0xffff)) (i64.const 16)))))
        (then (return (i32.const 0))))))
    (i32.const 64))

  ;; head reads the head of the item at $at: the end of the head, the major type,
  ;; and the argument, which is in the first byte or in the 1, 2, 4 or 8 after it.
  (func $head (param $at i32) (result i32 i32 i64)
    (local $first i32) (local $info i32) (local $end i32) (local $arg i64)
    (local.set $first (i32.load8_u (local.get $at)))
    (local.set $info (i32.and (local.get $first) (i32.const 31)))
    (local.set $arg (i64.extend_i32_u (local.get $info)))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (local.set $end (local.get $at))
    (if (i32.ge_u (local.get $info) (i32.const 24)) (then
      (local.set $end (i32.add (local.get $at)
        (i32.shl (i32.const 1) (i32.and (local.get $info) (i32.const 3)))))
      (local.set $arg (i64.const 0))
      (loop $byte
        (local.set $arg (i64.or (i64.shl (local.get $arg) (i64.const 8))
          (i64.load8_u (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $byte (i32.lt_u (local.get $at) (local.get $end))))))
    (local.get $end)
    (i32.shr_u (local.get $first) (i32.const 5))
    (local.get $arg))

  ;; number writes $n as an unsigned integer in its shortest form, and returns
  ;; the packed result.
  (func $number (param $n i64) (result i64)
    (local $bits i32) (local $at i32) (local $info i32)
    (local.set $at (i32.const 16))
    (if (i64.lt_u (local.get $n) (i64.const 24))
      (then (local.set $info (i32.wrap_i64 (local.get $n))))
      (else
        (local.set $info (i32.const 24))
        (local.set $bits (i32.const 8))
        (loop $wider ;; 8, 16, 32, 64 bits
          (if (i32.lt_u (local.get $bits) (i32.const 64)) (then
            (if (i64.ne (i64.shr_u (local.get $n) (i64.extend_i32_u (local.get $bits))) (i64.const 0)) (then
              (local.set $info (i32.add (local.get $info) (i32.const 1)))
              (local.set $bits (i32.shl (local.get $bits) (i32.const 1)))
              (br $wider))))))))
    (i32.store8 (local.get $at) (local.get $info))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (block $done
      (loop $byte
        (br_if $done (i32.eqz (local.get $bits)))
        (local.set $bits (i32.sub (local.get $bits) (i32.const 8)))
        (i64.store8 (local.get $at) (i64.shr_u (local.get $n) (i64.extend_i32_u (local.get $bits))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $byte)))
    (i64.or (i64.shl (i64.const 16) (i64.const 32))
      (i64.extend_i32_u (i32.sub (local.get $at) (i32.const 16)))))

  (func $not_an_integer (result i64)
    (call $fail (i32.const 0) (i32.const 32) (i32.const 14))
    (i64.const 0))

  (func $overflow (result i64)
    (call $fail (i32.const 0) (i32.const 48) (i32.const 8))
    (i64.const 0))

  (func $exec (export "exec") (param $at i32) (param $size i32) (result i64)
    (local $major i32) (local $arg i64)
    (call $head (local.get $at))
    (local.set $arg) (local.set $major) drop
    (if (i32.gt_u (local.get $major) (i32.const 1)) (then (return (call $not_an_integer))))
    ;; A negative integer is -1 - arg.
    (if (i64.gt_u (local.get $arg)
          (i64.sub (i64.const 0xffffffff) (i64.extend_i32_u (local.get $major))))
      (then (return (call $overflow))))
    (local.set $arg (i64.add (local.get $arg) (i64.extend_i32_u (local.get $major))))
    (call $number (i64.mul (local.get $arg) (local.get $arg))))

  ;; sum adds the elements of the array at $at or, if $entries is 1, the second
  ;; elements of its elements [id, output].
  (func $sum (param $at i32) (param $entries i32) (result i64)
    (local $left i64) (local $major i32) (local $arg i64) (local $total i64)
    (call $head (local.get $at))
    (local.set $left) drop (local.set $at)
    (block $done
      (loop $element
        (br_if $done (i64.eqz (local.get $left)))
        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
        (if (local.get $entries) (then
          (call $head (i32.add (local.get $at) (i32.const 1)))
          (local.set $arg) (local.set $major) (local.set $at)
          (if (i32.eq (local.get $major) (i32.const 3)) (then ;; the id is a text
            (local.set $at (i32.add (local.get $at) (i32.wrap_i64 (local.get $arg))))))))
        (call $head (local.get $at))
        (local.set $arg) (local.set $major) (local.set $at)
        (if (local.get $major) (then (return (call $not_an_integer))))
        (local.set $total (i64.add (local.get $total) (local.get $arg)))
        (if (i64.lt_u (local.get $total) (local.get $arg)) (then (return (call $overflow))))
        (br $element)))
    (call $number (local.get $total)))

  (func $aggregate (export "aggregate") (param $at i32) (param $size i32) (result i64)
    (call $sum (local.get $at) (i32.const 1)))

  (func $merge (export "merge") (param $at i32) (param $size i32) (result i64)
    (call $sum (local.get $at) (i32.const 0))))
