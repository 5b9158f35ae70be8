// X25519 (RFC 7748), SHA-256 and HMAC (RFC 6234), ChaCha20-Poly1305 (RFC 8439), written to be short. For CryptoKit.swift.

// MARK: X25519, on 16 limbs of 16 bits

typealias Field = [Int64]

private let zero = Field(repeating: 0, count: 16)
private let one: Field = [1] + zero.dropFirst()
private let factor: Field = [0xdb41, 1] + zero.dropFirst(2)  // 121665

func x25519(_ scalar: [UInt8], _ point: [UInt8]) -> [UInt8] {
  var bits = scalar
  bits[0] &= 248
  bits[31] = (bits[31] & 127) | 64
  let x = unpacked(point)
  var (a, b, c, d) = (one, x, zero, one)
  for place in stride(from: 254, through: 0, by: -1) {
    let isSet = (bits[place >> 3] >> UInt8(place & 7)) & 1 == 1
    if isSet { (a, b, c, d) = (b, a, d, c) }
    var e = plus(a, c)
    a = minus(a, c)
    c = plus(b, d)
    b = minus(b, d)
    d = times(e, e)
    let f = times(a, a)
    a = times(c, a)
    c = times(b, e)
    e = plus(a, c)
    a = minus(a, c)
    b = times(a, a)
    c = minus(d, f)
    a = plus(times(c, factor), d)
    c = times(c, a)
    a = times(d, f)
    d = times(b, x)
    b = times(e, e)
    if isSet { (a, b, c, d) = (b, a, d, c) }
  }
  return packed(times(a, inverse(c)))
}

private func plus(_ a: Field, _ b: Field) -> Field { zip(a, b).map { $0 + $1 } }
private func minus(_ a: Field, _ b: Field) -> Field { zip(a, b).map { $0 - $1 } }

private func times(_ a: Field, _ b: Field) -> Field {
  var product = Field(repeating: 0, count: 31)
  for i in 0..<16 {
    for j in 0..<16 { product[i + j] += a[i] * b[j] }
  }
  for i in 0..<15 { product[i] += 38 * product[i + 16] }
  return carried(carried(Array(product.prefix(16))))
}

private func inverse(_ value: Field) -> Field {
  var result = value
  for place in stride(from: 253, through: 0, by: -1) {
    result = times(result, result)
    if place != 2 && place != 4 { result = times(result, value) }
  }
  return result
}

private func carried(_ value: Field) -> Field {
  var result = value
  for i in 0..<16 {
    let carry = result[i] >> 16
    result[i] -= carry << 16
    result[(i + 1) % 16] += i == 15 ? 38 * carry : carry
  }
  return result
}

private func unpacked(_ bytes: [UInt8]) -> Field {
  var result: Field = bytes.chunked(2).map { Int64($0[0]) | Int64($0[1]) << 8 }
  result[15] &= 0x7fff
  return result
}

private func packed(_ value: Field) -> [UInt8] {
  var result = carried(carried(carried(value)))
  for _ in 0..<2 {
    var less = zero  // the value minus 2^255 - 19
    less[0] = result[0] - 0xffed
    for i in 1..<15 {
      less[i] = result[i] - 0xffff - ((less[i - 1] >> 16) & 1)
      less[i - 1] &= 0xffff
    }
    less[15] = result[15] - 0x7fff - ((less[14] >> 16) & 1)
    let isNegative = (less[15] >> 16) & 1 == 1
    less[14] &= 0xffff
    if !isNegative { result = less }
  }
  return result.flatMap { (limb: Int64) -> [UInt8] in [UInt8(limb & 0xff), UInt8((limb >> 8) & 0xff)] }
}

// MARK: SHA-256 and HMAC

func hmac(_ key: [UInt8], _ text: [UInt8]) -> [UInt8] {
  let short = key.count > 64 ? sha256(key) : key
  let padded = short + [UInt8](repeating: 0, count: 64 - short.count)
  return sha256(padded.map { $0 ^ 0x5c } + sha256(padded.map { $0 ^ 0x36 } + text))
}

func sha256(_ text: [UInt8]) -> [UInt8] {
  let primes = (2...311).filter { n in !(2..<n).contains { n % $0 == 0 } }
  let constants = primes.map { fraction(of: $0, power: 3) }
  var hash = primes.prefix(8).map { fraction(of: $0, power: 2) }
  let length = UInt64(text.count * 8)
  let zeros = (119 - text.count % 64) % 64
  var message: [UInt8] = text
  message.append(0x80)
  message += [UInt8](repeating: 0, count: zeros)
  for shift: UInt64 in [56, 48, 40, 32, 24, 16, 8, 0] { message.append(UInt8(truncatingIfNeeded: length >> shift)) }
  for start in stride(from: 0, to: message.count, by: 64) {
    var w: [UInt32] = []
    for four in Array(message[start..<(start + 64)]).chunked(4) {
      var word: UInt32 = 0
      for byte in four { word = word << 8 | UInt32(byte) }
      w.append(word)
    }
    for i in 16..<64 {
      let s0: UInt32 = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ (w[i - 15] >> 3)
      let s1: UInt32 = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ (w[i - 2] >> 10)
      let sum: UInt32 = w[i - 16] &+ s0
      w.append(sum &+ w[i - 7] &+ s1)
    }
    var v = hash
    for i in 0..<64 {
      let s1: UInt32 = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)
      let chosen: UInt32 = (v[4] & v[5]) ^ (~v[4] & v[6])
      var t1: UInt32 = v[7] &+ s1
      t1 = t1 &+ chosen &+ constants[i]
      t1 = t1 &+ w[i]
      let s0: UInt32 = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)
      let most: UInt32 = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2])
      let t2: UInt32 = s0 &+ most
      v = [t1 &+ t2, v[0], v[1], v[2], v[3] &+ t1, v[4], v[5], v[6]]
    }
    hash = zip(hash, v).map { $0 &+ $1 }
  }
  var digest: [UInt8] = []
  for word in hash {
    for shift: UInt32 in [24, 16, 8, 0] { digest.append(UInt8(truncatingIfNeeded: word >> shift)) }
  }
  return digest
}

private func turned(_ word: UInt32, _ by: UInt32) -> UInt32 { word >> by | word << (32 - by) }

/// The first 32 bits behind the point of a prime's root, exactly: the greatest n with n^power <= prime * 2^(32 * power).
private func fraction(of prime: Int, power: Int) -> UInt32 {
  var (low, high) = (UInt64(0), UInt64(1) << 36)
  while high - low > 1 {
    let middle = (low + high) / 2
    if isAtMost(middle, power, prime) { low = middle } else { high = middle }
  }
  return UInt32(truncatingIfNeeded: low)
}

private func isAtMost(_ n: UInt64, _ power: Int, _ prime: Int) -> Bool {
  let digits = { (value: UInt64) in [value & 0xffff, value >> 16 & 0xffff, value >> 32] }
  var product: [UInt64] = [1]
  for _ in 0..<power {
    var next = [UInt64](repeating: 0, count: product.count + 3)
    for (i, a) in product.enumerated() {
      for (j, b) in digits(n).enumerated() { next[i + j] += a * b }
    }
    for i in 0..<(next.count - 1) {
      next[i + 1] += next[i] >> 16
      next[i] &= 0xffff
    }
    product = next
  }
  let bound = [UInt64](repeating: 0, count: 2 * power) + [UInt64(prime)]
  for i in stride(from: max(product.count, bound.count) - 1, through: 0, by: -1) {
    let (a, b) = (i < product.count ? product[i] : 0, i < bound.count ? bound[i] : 0)
    if a != b { return a < b }
  }
  return true
}

// MARK: ChaCha20-Poly1305

/// Nil where the tag is not that of the text; no associated data.
func openChaChaPoly(_ sealed: [UInt8], key: [UInt8], nonce: [UInt8]) -> [UInt8]? {
  guard sealed.count >= 16 else { return nil }
  let text = Array(sealed.dropLast(16))
  let padding = [UInt8](repeating: 0, count: (16 - text.count % 16) % 16)
  var told: [UInt8] = text + padding + [UInt8](repeating: 0, count: 8)
  for shift in stride(from: 0, to: 64, by: 8) { told.append(UInt8(truncatingIfNeeded: text.count >> shift)) }
  let tag = poly1305(told, key: Array(chaCha(key, nonce, 0).prefix(32)))
  guard tag == Array(sealed.suffix(16)) else { return nil }
  var opened: [UInt8] = []
  for (block, bytes) in text.chunked(64).enumerated() {
    opened += zip(bytes, chaCha(key, nonce, UInt32(block + 1))).map { (a: UInt8, b: UInt8) -> UInt8 in a ^ b }
  }
  return opened
}

private func chaCha(_ key: [UInt8], _ nonce: [UInt8], _ block: UInt32) -> [UInt8] {
  var start: [UInt32] = words(Array("expand 32-byte k".utf8)) + words(key)
  start.append(block)
  start += words(nonce)
  var s = start
  let quarters: [[Int]] = [
    [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
  ]
  func stir(_ x: Int, _ y: Int, _ z: Int, _ by: UInt32) {
    s[x] = s[x] &+ s[y]
    s[z] = turned(s[z] ^ s[x], 32 - by)
  }
  for _ in 0..<10 {
    for q in quarters {
      stir(q[0], q[1], q[3], 16)
      stir(q[2], q[3], q[1], 12)
      stir(q[0], q[1], q[3], 8)
      stir(q[2], q[3], q[1], 7)
    }
  }
  var stream: [UInt8] = []
  for i in 0..<16 {
    let word = s[i] &+ start[i]
    for shift: UInt32 in [0, 8, 16, 24] { stream.append(UInt8(truncatingIfNeeded: word >> shift)) }
  }
  return stream
}

/// Little-endian.
private func words(_ bytes: [UInt8]) -> [UInt32] {
  bytes.chunked(4).map { four in
    var word: UInt32 = 0
    for byte in four.reversed() { word = word << 8 | UInt32(byte) }
    return word
  }
}

private func poly1305(_ text: [UInt8], key: [UInt8]) -> [UInt8] {
  var r: [Int] = key.prefix(16).map { Int($0) }
  r.append(0)
  for place in [3, 7, 11, 15] { r[place] &= 15 }
  for place in [4, 8, 12] { r[place] &= 252 }
  var h = [Int](repeating: 0, count: 17)
  for block in text.chunked(16) {
    var digits: [Int] = block.map { Int($0) }
    digits.append(1)
    h = sum(h, digits + [Int](repeating: 0, count: 17 - digits.count))
    var product = [Int](repeating: 0, count: 17)
    for i in 0..<17 {
      for j in 0...i { product[i] += h[j] * r[i - j] }
      for j in (i + 1)..<18 where j < 17 { product[i] += 320 * h[j] * r[i + 17 - j] }
    }
    for _ in 0..<2 {
      var carry = 0
      for i in 0..<16 {
        carry += product[i]
        product[i] = carry & 255
        carry >>= 8
      }
      carry += product[16]
      product[16] = carry & 3
      product[0] += 5 * (carry >> 2)
    }
    h = product
  }
  h = sum(h, [Int](repeating: 0, count: 17))
  var minus = [Int](repeating: 0, count: 17)
  (minus[0], minus[16]) = (5, 252)
  let less = sum(h, minus)
  let reduced = less[16] & 128 == 0 ? less : h
  var pad: [Int] = key.suffix(16).map { Int($0) }
  pad.append(0)
  return sum(reduced, pad).prefix(16).map { UInt8($0) }
}

private func sum(_ a: [Int], _ b: [Int]) -> [Int] {
  var result = a
  var carry = 0
  for i in 0..<17 {
    carry += a[i] + b[i]
    result[i] = carry & 255
    carry >>= 8
  }
  return result
}

extension Array {
  fileprivate func chunked(_ size: Int) -> [[Element]] {
    stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
  }
}
