package binary

// Limits that a module is held to. Those marked JS are the implementation
// limits of the WebAssembly JavaScript Interface specification, section
// "Implementation-defined Limits", which toolchains already respect. The others
// are tighter, because compiling takes time and memory that grow faster than
// the module; the measurements stand beside them.
const (
	MaxModuleSize   = 256 << 20 // bytes; JS has 1 GiB
	MaxTypes        = 1_000_000 // JS
	MaxFunctions    = 1_000_000 // JS, imported and defined
	MaxImports      = 100_000   // JS has 1,000,000; the engine keeps 200 bytes for each
	MaxExports      = 100_000   // JS has 1,000,000
	MaxGlobals      = 1_000_000 // JS
	MaxDataSegments = 100_000   // JS
	MaxElements     = 100_000   // element segments
	MaxTables       = 100_000   // JS
	MaxParams       = 1_000     // JS
	MaxReturns      = 1_000     // JS
	MaxLocals       = 50_000    // JS, in one function with its parameters
	MaxBodySize     = 7_654_321 // bytes of one function; JS
	MaxTargets      = 65_520    // of one br_table; JS
	MaxMemoryPages  = 65_536

	// MaxTableSize bounds the entries of all tables together, with those that
	// table.grow can add. JS has 10,000,000 for each. An entry takes 8 bytes of
	// the host's memory in each instance, three times that while a table grows,
	// which no limit of linear memory counts. Real guests have up to 10,000.
	MaxTableSize = 1_000_000

	// MaxElementEntries bounds the entries of all element segments together:
	// the engine keeps some 50 bytes for each. Real guests have up to 10,000.
	MaxElementEntries = 2_000_000

	// MaxTotalLocals bounds the locals of all functions together. The engine
	// zeroes each of them in code of its own: two millions, in 40 functions of
	// 50,000, compile in about a second.
	MaxTotalLocals = 5_000_000

	// MaxNesting bounds how deep blocks stand within blocks in one function.
	MaxNesting = 10_000

	// MaxNestingWork bounds the sum, over all blocks of one function, of the
	// depth at which each stands: the engine's time for nested blocks grows
	// with it. One nest of MaxNesting blocks stays within it.
	MaxNestingWork = 60_000_000

	// MaxBodyTargets bounds the targets of all br_table of one function
	// together, since the engine's time for them is quadratic.
	MaxBodyTargets = 200_000
)
