"""Run one trial, or with ``-m`` a study of many; the same as ``cv-lab train``.

python train.py                                                   # one trial on embedded data
python train.py -m optimizer=adam,sgd,rmsprop lr=1e-2,1e-3,1e-4   # a study of nine
python train.py experiment=cifar100_learning_rate                 # a published study
"""

from cv_lab.train import main

if __name__ == "__main__":
    main()
