;; Does all floating-point operations whose bits might differ between engines and
;; machines. A chunk is an unsigned integer n below 2^16. Its output is a byte
;; string: sums of both widths, long ones whose length depends on n, and the bits
;; of the result of each operation for each pair of zeros, infinities and NaNs
;; (quiet, signalling and negative, with payloads that depend on n). The aggregate
;; is the sum, in id order, of the first sums. Build: make -C guest-examples wat
(module
  (memory (export "memory") 32)
  (global $at (mut i32) (i32.const 0)) ;; where the next bits go
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))

  (func $put (param f64)
    (f64.store align=1 (global.get $at) (local.get 0))
    (global.set $at (i32.add (global.get $at) (i32.const 8))))
  (func $put32 (param f32)
    (f32.store align=1 (global.get $at) (local.get 0))
    (global.set $at (i32.add (global.get $at) (i32.const 4))))
  (func $put128 (param v128)
    (v128.store align=1 (global.get $at) (local.get 0))
    (global.set $at (i32.add (global.get $at) (i32.const 16))))

  (func $unary (param $x f64) (local $y f32)
    (local.set $y (f32.demote_f64 (local.get $x)))
    (call $put (f64.sqrt (local.get $x)))
    (call $put (f64.ceil (local.get $x)))
    (call $put (f64.floor (local.get $x)))
    (call $put (f64.trunc (local.get $x)))
    (call $put (f64.nearest (local.get $x)))
    (call $put (f64.neg (local.get $x)))
    (call $put (f64.abs (local.get $x)))
    (call $put (f64.promote_f32 (local.get $y)))
    (call $put32 (local.get $y))
    (call $put32 (f32.sqrt (local.get $y)))
    (call $put32 (f32.ceil (local.get $y)))
    (call $put32 (f32.floor (local.get $y)))
    (call $put32 (f32.trunc (local.get $y)))
    (call $put32 (f32.nearest (local.get $y)))
    (call $put128 (f64x2.sqrt (f64x2.splat (local.get $x))))
    (call $put128 (f32x4.sqrt (f32x4.splat (local.get $y))))
    (call $put128 (f64x2.promote_low_f32x4 (f32x4.splat (local.get $y))))
    (call $put128 (f32x4.demote_f64x2_zero (f64x2.splat (local.get $x)))))

  (func $binary (param $x f64) (param $y f64) (local $a f32) (local $b f32) (local $v v128) (local $w v128)
    (local.set $a (f32.demote_f64 (local.get $x)))
    (local.set $b (f32.demote_f64 (local.get $y)))
    (call $put (f64.add (local.get $x) (local.get $y)))
    (call $put (f64.sub (local.get $x) (local.get $y)))
    (call $put (f64.mul (local.get $x) (local.get $y)))
    (call $put (f64.div (local.get $x) (local.get $y)))
    (call $put (f64.min (local.get $x) (local.get $y)))
    (call $put (f64.max (local.get $x) (local.get $y)))
    (call $put (f64.copysign (local.get $x) (local.get $y)))
    (call $put32 (f32.add (local.get $a) (local.get $b)))
    (call $put32 (f32.sub (local.get $a) (local.get $b)))
    (call $put32 (f32.mul (local.get $a) (local.get $b)))
    (call $put32 (f32.div (local.get $a) (local.get $b)))
    (call $put32 (f32.min (local.get $a) (local.get $b)))
    (call $put32 (f32.max (local.get $a) (local.get $b)))
    (local.set $v (f64x2.splat (local.get $x)))
    (local.set $w (f64x2.splat (local.get $y)))
    (call $put128 (f64x2.add (local.get $v) (local.get $w)))
    (call $put128 (f64x2.mul (local.get $v) (local.get $w)))
    (call $put128 (f64x2.div (local.get $v) (local.get $w)))
    (call $put128 (f64x2.max (local.get $v) (local.get $w)))
    (local.set $v (f32x4.splat (local.get $a)))
    (local.set $w (f32x4.splat (local.get $b)))
    (call $put128 (f32x4.sub (local.get $v) (local.get $w)))
    (call $put128 (f32x4.div (local.get $v) (local.get $w)))
    (call $put128 (f32x4.min (local.get $v) (local.get $w))))

  ;; value returns the i-th of eight operands.
  (func $value (param $i i32) (param $n i64) (result f64)
    (block $7 (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 $5 $6 $7 (local.get $i)))
      (return (f64.const 0)))
      (return (f64.const -0)))
      (return (f64.const inf)))
      (return (f64.const -inf)))
      (return (f64.add (f64.convert_i64_u (local.get $n)) (f64.const 0.1))))
      (return (f64.reinterpret_i64 (i64.or (i64.const 0x7ff8000000000000) (local.get $n)))))
      (return (f64.reinterpret_i64 (i64.or (i64.const 0x7ff0000000000001) (local.get $n)))))
    (f64.reinterpret_i64 (i64.or (i64.const 0xfff4000020000000) (local.get $n))))

  ;; number reads an unsigned integer of at most two bytes.
  (func $number (param $ptr i32) (result i64) (local $first i32)
    (local.set $first (i32.load8_u (local.get $ptr)))
    (if (i32.lt_u (local.get $first) (i32.const 24)) (then (return (i64.extend_i32_u (local.get $first)))))
    (if (i32.eq (local.get $first) (i32.const 24)) (then (return (i64.load8_u offset=1 (local.get $ptr)))))
    (if (i32.ne (local.get $first) (i32.const 25)) (then unreachable))
    (i64.or (i64.shl (i64.load8_u offset=1 (local.get $ptr)) (i64.const 8)) (i64.load8_u offset=2 (local.get $ptr))))

  (func $sums (param $n i64) (local $k f64) (local $last f64) (local $s f64) (local $t f64) (local $u f32)
    (local.set $last (f64.mul (f64.convert_i64_u (i64.add (local.get $n) (i64.const 1))) (f64.const 500)))
    (loop $next
      (local.set $k (f64.add (local.get $k) (f64.const 1)))
      (local.set $s (f64.add (local.get $s) (f64.div (f64.const 1) (local.get $k))))
      (local.set $t (f64.add (f64.mul (local.get $t) (f64.const 0.999)) (f64.sqrt (local.get $k))))
      (local.set $u (f32.add (local.get $u) (f32.div (f32.const 1) (f32.demote_f64 (local.get $k)))))
      (br_if $next (f64.lt (local.get $k) (local.get $last))))
    (call $put (local.get $s))
    (call $put (local.get $t))
    (call $put32 (local.get $u)))

  (func (export "exec") (param $ptr i32) (param $len i32) (result i64) (local $n i64) (local $i i32) (local $j i32)
    (local.set $n (call $number (local.get $ptr)))
    (global.set $at (i32.const 3)) ;; after the head
    (call $sums (local.get $n))
    (loop $rows
      (call $unary (call $value (local.get $i) (local.get $n)))
      (local.set $j (i32.const 0))
      (loop $columns
        (call $binary (call $value (local.get $i) (local.get $n)) (call $value (local.get $j) (local.get $n)))
        (br_if $columns (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 8))))
      (br_if $rows (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
    (i32.store8 (i32.const 0) (i32.const 0x59)) ;; a byte string whose length has two bytes
    (i32.store8 (i32.const 1) (i32.shr_u (i32.sub (global.get $at) (i32.const 3)) (i32.const 8)))
    (i32.store8 (i32.const 2) (i32.sub (global.get $at) (i32.const 3)))
    (i64.extend_i32_u (global.get $at)))

  ;; headSize returns the size of the head of an item with an argument of at most two bytes.
  (func $headSize (param $ptr i32) (result i32) (local $info i32)
    (local.set $info (i32.and (i32.load8_u (local.get $ptr)) (i32.const 31)))
    (if (i32.lt_u (local.get $info) (i32.const 24)) (then (return (i32.const 1))))
    (i32.sub (local.get $info) (i32.const 22))) ;; 24 -> 2, 25 -> 3

  (func (export "aggregate") (param $ptr i32) (param $len i32) (result i64) (local $end i32) (local $sum f64) (local $bits i64) (local $i i32)
    (local.set $end (i32.add (local.get $ptr) (local.get $len)))
    (local.set $ptr (i32.add (local.get $ptr) (call $headSize (local.get $ptr))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $ptr) (local.get $end)))
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1))) ;; the array of two
      (local.set $ptr (i32.add (local.get $ptr) (call $headSize (local.get $ptr)))) ;; the id
      (local.set $sum (f64.add (local.get $sum) (f64.load offset=3 align=1 (local.get $ptr))))
      (local.set $ptr (i32.add (local.get $ptr) (i32.add (i32.const 3)
        (i32.or (i32.shl (i32.load8_u offset=1 (local.get $ptr)) (i32.const 8)) (i32.load8_u offset=2 (local.get $ptr))))))
      (br $next)))
    (local.set $bits (i64.reinterpret_f64 (local.get $sum)))
    (i32.store8 (i32.const 0) (i32.const 0xfb))
    (loop $bytes ;; the last byte first: CBOR is big-endian
      (i32.store8 (i32.sub (i32.const 8) (local.get $i)) (i32.wrap_i64 (local.get $bits)))
      (local.set $bits (i64.shr_u (local.get $bits) (i64.const 8)))
      (br_if $bytes (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
    (i64.const 9)))
