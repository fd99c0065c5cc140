package schedule

// ClaimSQL is for the test of what it reads.
const ClaimSQL = claimSQL
