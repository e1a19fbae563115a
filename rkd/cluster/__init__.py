"""Beyond one machine: sweeps on a Ray cluster, shared storage, Slurm and plans. Ray is imported only when needed."""
