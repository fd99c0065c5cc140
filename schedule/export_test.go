package schedule

// ClaimSQL is for the test of its plan.
const ClaimSQL = claimSQL
