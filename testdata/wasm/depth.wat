;; exec takes an unsigned integer n, of up to four bytes, calls itself n times
;; deep, and returns n: how deep calls may go is all that it shows.
;; Build: make -C guest-examples wat
(module $depth
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $down (param $n i32)
    (if (local.get $n) (then (call $down (i32.sub (local.get $n) (i32.const 1))))))
  (func $number (param $ptr i32) (result i32)
    (local $head i32) (local $n i32) (local $left i32)
    (local.set $head (i32.load8_u (local.get $ptr)))
    (if (i32.lt_u (local.get $head) (i32.const 24)) (then (return (local.get $head))))
    (local.set $left (i32.shl (i32.const 1) (i32.sub (local.get $head) (i32.const 24))))
    (loop $more
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
      (local.set $n (i32.add (i32.shl (local.get $n) (i32.const 8)) (i32.load8_u (local.get $ptr))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))
    (local.get $n))
  (func (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (call $down (call $number (local.get $ptr)))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))))
